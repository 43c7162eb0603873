// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_LAYERS_CONV_IPP
#define LOWRANK_LORA_LAYERS_CONV_IPP

#include <lowrank/lora/layers/conv.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY extent3 conv_geometry::output_size(const extent3& size) const {
    extent3 out{};
    for (std::size_t i = 0; i < 3; ++i) {
        detail::expects(kernel[i] >= 1 && stride[i] >= 1 && padding[i] >= 0 && dilation[i] >= 1,
                        "conv_geometry: kernel, stride and dilation must be positive, padding not negative");
        const index reach = size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1;
        detail::expects(reach >= 0, "conv_geometry: the kernel is larger than the padded image");
        out[i] = reach / stride[i] + 1;
    }
    return out;
}

namespace detail {

/// Where coordinate `at` of a dimension of length `size` reads from, or -1 for a zero.
LOWRANK_INLINE index padded_source(index at, index size, padding_mode mode) {
    if (0 <= at && at < size) {
        return at;
    }
    switch (mode) {
        case padding_mode::zeros: return -1;
        case padding_mode::reflect: return at < 0 ? -at : 2 * (size - 1) - at;
        case padding_mode::replicate: return at < 0 ? 0 : size - 1;
        case padding_mode::circular: return at < 0 ? at + size : at - size;
    }
    return -1;
}

/// Calls `visit(row of the patch matrix, position, offset in the plane)` for everything inside the image.
template <class F>
void for_patch_entries(const conv_geometry& g, const extent3& size, F&& visit) {
    const extent3 out = g.output_size(size);
    for (std::size_t i = 0; i < 3; ++i) {
        expects(g.mode != padding_mode::reflect || g.padding[i] < size[i], "conv: reflection needs padding below size");
        expects(g.mode != padding_mode::circular || g.padding[i] <= size[i], "conv: wrapping needs padding up to size");
    }
    const auto source = [&](std::size_t i, index position, index tap) {
        return padded_source(position * g.stride[i] - g.padding[i] + tap * g.dilation[i], size[i], g.mode);
    };
    index tap = 0;
    for (index kd = 0; kd < g.kernel[0]; ++kd) {
        for (index kh = 0; kh < g.kernel[1]; ++kh) {
            for (index kw = 0; kw < g.kernel[2]; ++kw, ++tap) {
                index position = 0;
                for (index d = 0; d < out[0]; ++d) {
                    const index from_d = source(0, d, kd);
                    for (index h = 0; h < out[1]; ++h) {
                        const index from_h = source(1, h, kh);
                        for (index w = 0; w < out[2]; ++w, ++position) {
                            const index from_w = source(2, w, kw);
                            if (from_d >= 0 && from_h >= 0 && from_w >= 0) {
                                visit(tap, position, (from_d * size[1] + from_h) * size[2] + from_w);
                            }
                        }
                    }
                }
            }
        }
    }
}

template <class X, class P>
void check_patches(const char* function, const conv_geometry& g, const X& image, const extent3& size,
                   const P& patches) {
    const extent3 out = g.output_size(size);
    expects_shape(function, "image", image.rows(), image.cols(), size[0] * size[1] * size[2], image.cols());
    expects_shape(function, "patches", patches.rows(), patches.cols(), image.cols() * g.kernel_size(),
                  out[0] * out[1] * out[2]);
}

}  // namespace detail

template <real S>
void unfold(const conv_geometry& g, std::type_identity_t<const_column_view<S>> image, const extent3& size,
            std::type_identity_t<column_view<S>> patches) {
    detail::check_patches("unfold", g, image, size, patches);
    patches.setZero();
    const index taps = g.kernel_size();
    detail::for_patch_entries(g, size, [&](index tap, index position, index from) {
        for (index c = 0; c < image.cols(); ++c) {
            patches(c * taps + tap, position) = image(from, c);
        }
    });
}

template <real S>
void add_folded(const conv_geometry& g, std::type_identity_t<const_column_view<S>> patches, const extent3& size,
                std::type_identity_t<column_view<S>> image) {
    detail::check_patches("add_folded", g, image, size, patches);
    const index taps = g.kernel_size();
    detail::for_patch_entries(g, size, [&](index tap, index position, index from) {
        for (index c = 0; c < image.cols(); ++c) {
            image(from, c) += patches(c * taps + tap, position);
        }
    });
}

template <storage T>
const_weight_view<T> grouped_operator<T>::part(index g) const {
    const index block = rows() / groups_;
    return {w_.data() + g * block * w_.outerStride(), block, w_.cols(), w_.outerStride()};
}

template <storage T>
void grouped_operator<T>::add_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y,
                                      workspace& ws) const {
    detail::expects_shape("grouped_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
    detail::expects_shape("grouped_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
    const index block = rows() / groups_;
    for (index g = 0; g < groups_; ++g) {
        lowrank::add_product<T, 1>(alpha, part(g), detail::some_rows(x, g * w_.cols(), w_.cols()),
                                   detail::some_rows(y, g * block, block), ws);
    }
}

template <storage T>
void grouped_operator<T>::add_transposed_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y,
                                                 workspace& ws) const {
    detail::expects_shape("grouped_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
    detail::expects_shape("grouped_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
    const index block = rows() / groups_;
    for (index g = 0; g < groups_; ++g) {
        lowrank::add_transposed_product<T, 1>(alpha, part(g), detail::some_rows(x, g * block, block),
                                              detail::some_rows(y, g * w_.cols(), w_.cols()), ws);
    }
}

namespace detail {

/// Adds the blocks of a compact matrix to the diagonal of a full one, or the other way round.
template <real S>
void add_group_blocks(matrix<S>& compact, matrix<S>& full, index groups, bool to_full) {
    const index block = full.rows() / groups;
    const index width = full.cols() / groups;
    for (index g = 0; g < groups; ++g) {
        const auto part = dense_view<S>(compact).middle_rows(g * block, block);
        const auto diagonal = dense_view<S>(full).block(g * block, g * width, block, width);
        add_scaled(S(1), to_full ? part : diagonal, to_full ? diagonal : part);
    }
}

}  // namespace detail

template <real S>
matrix<S> expand_groups(const matrix<S>& compact, index groups) {
    detail::expects(groups >= 1 && compact.rows() % groups == 0, "expand_groups: groups must divide the rows");
    matrix<S> full, from = compact;
    full.setZero(compact.rows(), compact.cols() * groups);
    detail::add_group_blocks(from, full, groups, true);
    return full;
}

template <real S>
matrix<S> collect_groups(const matrix<S>& full, index groups) {
    detail::expects(groups >= 1 && full.rows() % groups == 0 && full.cols() % groups == 0,
                    "collect_groups: groups must divide rows and columns");
    matrix<S> compact, from = full;
    compact.setZero(full.rows(), full.cols() / groups);
    detail::add_group_blocks(compact, from, groups, false);
    return compact;
}

template <real S>
row_matrix<S> weight_gradient(const matrix<S>& x, const matrix<S>& dy, index groups) {
    detail::expects(groups >= 1 && x.rows() % groups == 0 && dy.rows() % groups == 0,
                    "weight_gradient: groups must divide inputs and outputs");
    detail::expects_shape("weight_gradient", "dy", dy.rows(), dy.cols(), dy.rows(), x.cols());
    const index in = x.rows() / groups;
    const index out = dy.rows() / groups;
    row_matrix<S> g;
    g.setZero(dy.rows(), in);
    for (index k = 0; k < groups; ++k) {
        add_product(S(1), dense_view<const S>(dy).middle_rows(k * out, out),
                    transposed(dense_view<const S>(x).middle_rows(k * in, in)),
                    dense_view<S>(g).middle_rows(k * out, out));
    }
    return g;
}

#ifdef LOWRANK_COMPILED
template class grouped_operator<float>;
template class grouped_operator<double>;
template class grouped_operator<half>;
template class grouped_operator<bfloat16>;
#define LOWRANK_CONV_OF(S)                                                                                   \
    template void unfold<S>(const conv_geometry&, const_column_view<S>, const extent3&, column_view<S>);     \
    template void add_folded<S>(const conv_geometry&, const_column_view<S>, const extent3&, column_view<S>); \
    template matrix<S> expand_groups<S>(const matrix<S>&, index);                                            \
    template matrix<S> collect_groups<S>(const matrix<S>&, index);                                           \
    template row_matrix<S> weight_gradient<S>(const matrix<S>&, const matrix<S>&, index);
LOWRANK_CONV_OF(float)
LOWRANK_CONV_OF(double)
#undef LOWRANK_CONV_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_LAYERS_CONV_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_CONV_HPP
#define LOWRANK_LORA_KINDS_CONV_HPP

/// \file
/// Convolutions in one to three dimensions as linear operators on patches, so that every adapter of a linear layer serves
/// them.
///
///     const lowrank::conv_geometry g{.kernel = {1, 3, 3}, .stride = {1, 2, 2}, .padding = {0, 1, 1}};
///     lowrank::unfold<float>(g, image, {1, 32, 32}, x);         // in * 3 * 3 rows, one column per output position
///     auto y = lowrank::apply(w, x);                            // any linear operator: base, adapted, merged
///
/// A weight (out, in / groups, kd, kh, kw) is, as it lies in memory, the out x (in / groups * kd * kh * kw) matrix that
/// multiplies patches; LoRA's A (r, in, k...) and B (out, r, 1...) are the factors of its change. Dilation, padding
/// modes and groups belong to the geometry, so an adapter cannot lose them.

#include <array>
#include <cstddef>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Depth, height, width. Fewer dimensions: the first ones are 1.
using extent3 = std::array<index, 3>;

/// What lies outside the image.
enum class padding_mode {
    zeros,
    reflect,    ///< mirrored without repeating the border
    replicate,  ///< the border, repeated
    circular,   ///< the other side
};

/// How a kernel moves over an image; PyTorch's meaning of each word.
struct conv_geometry {
    extent3 kernel = {1, 1, 1};
    extent3 stride = {1, 1, 1};
    extent3 padding = {0, 0, 0};
    extent3 dilation = {1, 1, 1};
    padding_mode mode = padding_mode::zeros;

    [[nodiscard]] index kernel_size() const noexcept { return kernel[0] * kernel[1] * kernel[2]; }

    /// floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 in each dimension.
    [[nodiscard]] extent3 output_size(const extent3& size) const {
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
};

namespace detail {

/// Where coordinate `at` of a dimension of length `size` reads from, or -1 for a zero.
inline index padded_source(index at, index size, padding_mode mode) {
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

/// Copies the patch under each output position into a column: row c * kernel_size + tap, column position.
///
/// `image` holds one channel per column, which is the (channels, d, h, w) array of an engine as it lies.
/// \pre Shapes agree.
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

/// image += unfold^T patches: sums what every patch says about each pixel. The gradient of the input.
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

/// The weight of a grouped convolution (or any block-diagonal weight) as a linear operator: rows of group g see only
/// the inputs of group g. The memory must outlive the map.
template <storage T>
class grouped_operator {
public:
    using scalar = compute_t<T>;

    /// `w` is out x (inputs per group). \pre groups divides out.
    grouped_operator(const_weight_view<T> w, index groups) : w_(w), groups_(groups) {
        detail::expects(groups >= 1 && w.rows() % groups == 0, "grouped_operator: groups must divide the rows");
    }

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols() * groups_; }

    void add_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        detail::expects_shape("grouped_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        const index block = rows() / groups_;
        for (index g = 0; g < groups_; ++g) {
            lowrank::add_product<T, 1>(alpha, part(g), x.middleRows(g * w_.cols(), w_.cols()),
                                       y.middleRows(g * block, block), ws);
        }
    }
    void add_transposed_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        detail::expects_shape("grouped_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        const index block = rows() / groups_;
        for (index g = 0; g < groups_; ++g) {
            lowrank::add_transposed_product<T, 1>(alpha, part(g), x.middleRows(g * block, block),
                                                  y.middleRows(g * w_.cols(), w_.cols()), ws);
        }
    }

private:
    [[nodiscard]] const_weight_view<T> part(index g) const {
        const index block = rows() / groups_;
        return {w_.data() + g * block * w_.outerStride(), block, w_.cols(), w_.outerStride()};
    }

    const_weight_view<T> w_;
    index groups_;
};

/// A block-diagonal factor written out: the out x (r / groups) B of a grouped convolution becomes out x r, with which
/// the adapter is an ordinary one.
template <real S>
[[nodiscard]] matrix<S> expand_groups(const matrix<S>& compact, index groups) {
    detail::expects(groups >= 1 && compact.rows() % groups == 0, "expand_groups: groups must divide the rows");
    const index block = compact.rows() / groups;
    matrix<S> full = matrix<S>::Zero(compact.rows(), compact.cols() * groups);
    for (index g = 0; g < groups; ++g) {
        full.block(g * block, g * compact.cols(), block, compact.cols()) = compact.middleRows(g * block, block);
    }
    return full;
}

/// Reads the blocks back: the gradient of the compact factor from that of the expanded one.
template <real S>
[[nodiscard]] matrix<S> collect_groups(const matrix<S>& full, index groups) {
    detail::expects(groups >= 1 && full.rows() % groups == 0 && full.cols() % groups == 0,
                    "collect_groups: groups must divide rows and columns");
    const index block = full.rows() / groups;
    const index width = full.cols() / groups;
    matrix<S> compact(full.rows(), width);
    for (index g = 0; g < groups; ++g) {
        compact.middleRows(g * block, block) = full.block(g * block, g * width, block, width);
    }
    return compact;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_CONV_HPP

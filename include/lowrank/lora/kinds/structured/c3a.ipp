// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_C3A_IPP
#define LOWRANK_LORA_KINDS_STRUCTURED_C3A_IPP

#include <lowrank/lora/kinds/structured/c3a.hpp>

#include <algorithm>
#include <numeric>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void c3a_adapter<S>::check() const {
    const index b = block_size();
    detail::expects(
        b >= 1 && out >= 1 && in >= 1 && out % b == 0 && in % b == 0 && c3a_kernel.rows() == (out / b) * (in / b),
        "c3a_adapter: the block size must divide the outputs and the inputs, with a kernel for each block");
}

namespace detail {

/// Every block of the inputs backwards: row j b + q of X is row j b + (b - 1 - q) of `to`, which is added to.
template <real S>
void add_blocks_backwards(index b, const const_column_view<S>& x, column_view<S>& to) {
    for (index n = 0; n < x.cols(); ++n) {
        for (index first = 0; first < x.rows(); first += b) {
            for (index q = 0; q < b; ++q) {
                to(first + b - 1 - q, n) += x(first + q, n);
            }
        }
    }
}

/// `body(i, j, h)` for every block: h is the block with its columns backwards, h(p, q) = kernel((b - 1 - q - p) mod b),
/// which is symmetric and depends on p + q only, so that 2 b - 1 numbers hold it.
template <real S, class F>
void for_circulant_blocks(const c3a_adapter<S>& a, workspace& ws, F&& body) {
    const index b = a.block_size();
    const workspace::frame scope(ws);
    auto h = ws.take<S>(2 * b - 1, 1);
    for (index i = 0; i < a.out / b; ++i) {
        for (index j = 0; j < a.in / b; ++j) {
            for (index t = 0; t < 2 * b - 1; ++t) {
                h(t, 0) = a.c3a_kernel(i * (a.in / b) + j, t < b ? b - 1 - t : 2 * b - 1 - t);
            }
            body(i, j, dense_view<const S>(h.data(), b, b, 1, 1));
        }
    }
}

}  // namespace detail

template <real S>
void c3a_adapter<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("c3a_adapter::add_product", "x", x.rows(), x.cols(), in, y.cols());
    detail::expects_shape("c3a_adapter::add_product", "y", y.rows(), y.cols(), out, x.cols());
    const index b = block_size();
    const workspace::frame scope(ws);
    auto backwards = ws.take<S>(in, x.cols());
    backwards.setZero();
    detail::add_blocks_backwards<S>(b, x, backwards);
    detail::for_circulant_blocks(*this, ws, [&](index i, index j, const dense_view<const S>& h) {
        detail::gemm_in<S>(alpha / static_cast<S>(in), h, detail::some_rows(backwards, j * b, b),
                           detail::some_rows(y, i * b, b), ws);
    });
}

template <real S>
void c3a_adapter<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("c3a_adapter::add_transposed_product", "x", x.rows(), x.cols(), out, y.cols());
    detail::expects_shape("c3a_adapter::add_transposed_product", "y", y.rows(), y.cols(), in, x.cols());
    const index b = block_size();
    const workspace::frame scope(ws);
    auto backwards = ws.take<S>(in, x.cols());
    backwards.setZero();
    detail::for_circulant_blocks(*this, ws, [&](index i, index j, const dense_view<const S>& h) {
        detail::gemm_in<S>(alpha / static_cast<S>(in), h, detail::some_rows(x, i * b, b),
                           detail::some_rows(backwards, j * b, b), ws);
    });
    detail::add_blocks_backwards<S>(b, backwards, y);
}

template <real S>
void c3a_adapter<S>::backward(const_column_view<S> x, const_column_view<S> dy, c3a_adapter& gradient,
                              column_view<S>* dx, workspace& ws) const {
    detail::expects_shape("c3a_adapter::backward", "x", x.rows(), x.cols(), in, dy.cols());
    detail::expects_shape("c3a_adapter::backward", "dy", dy.rows(), dy.cols(), out, x.cols());
    detail::expects_shape("c3a_adapter::backward", "gradient", gradient.c3a_kernel.rows(), gradient.c3a_kernel.cols(),
                          c3a_kernel.rows(), c3a_kernel.cols());
    constexpr index at_once = 64;
    const index b = block_size();
    const workspace::frame scope(ws);
    auto products = ws.take<S>(b, std::min(at_once, b));  // X_j dY_i^T for a few rows of dY_i
    for (index i = 0; i < out / b; ++i) {
        for (index j = 0; j < in / b; ++j) {
            const index block = i * (in / b) + j;
            for (index first = 0; first < b; first += at_once) {
                const index count = std::min(at_once, b - first);
                column_view<S> some = detail::some_columns(products, 0, count);
                some.setZero();
                add_outer_product(S(1), detail::some_rows(x, j * b, b), detail::some_rows(dy, i * b + first, count),
                                  some, ws);
                for (index p = 0; p < count; ++p) {
                    for (index q = 0; q < b; ++q) {
                        const index m = q - (first + p);
                        gradient.c3a_kernel(block, m < 0 ? m + b : m) += some(q, p) / static_cast<S>(in);
                    }
                }
            }
        }
    }
    if (dx != nullptr) {
        add_transposed_product(S(1), dy, *dx, ws);
    }
}

template <real S>
void c3a_adapter<S>::add_rows(double factor, index first, column_view<double> to) const {
    const index b = block_size();
    for (index k = 0; k < to.cols(); ++k) {
        const index i = (first + k) / b;
        const index p = (first + k) % b;
        for (index j = 0; j < in / b; ++j) {
            for (index q = 0; q < b; ++q) {
                const index m = q < p ? q - p + b : q - p;
                to(j * b + q, k) +=
                    factor * static_cast<double>(c3a_kernel(i * (in / b) + j, m)) / static_cast<double>(in);
            }
        }
    }
}

template <real S>
weight_change<S> c3a_adapter<S>::change() const {
    check();
    return added_rows_change{added_rows(*this)};
}

template <real S>
c3a_adapter<S> make_c3a(index out, index in, const c3a_options& options) {
    const index b = options.block_size;
    detail::expects(out >= 1 && in >= 1 && b >= 1 && out % b == 0 && in % b == 0,
                    "make_c3a: block_size must divide out and in");
    c3a_adapter<S> a{.out = out, .in = in};
    a.c3a_kernel.setZero((out / b) * (in / b), b);
    return a;
}

LOWRANK_BODY index c3a_block_size(index out, index in, index r) {
    const index common = std::gcd(out, in);
    index b = 1;
    while (b < common && (common % b != 0 || (out / b) * in > r * (out + in))) {
        ++b;
    }
    return std::max<index>(b, 1);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_C3A_OF(S)           \
    template struct c3a_adapter<S>; \
    template c3a_adapter<S> make_c3a<S>(index, index, const c3a_options&);
LOWRANK_C3A_OF(float)
LOWRANK_C3A_OF(double)
#undef LOWRANK_C3A_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_C3A_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_SKINNY_PRODUCT_HPP
#define LOWRANK_CORE_SKINNY_PRODUCT_HPP

/// \file
/// The hot kernel: a big matrix times few columns, Y += alpha M X and Y += alpha M^T X.
///
///     lowrank::workspace ws;
///     lowrank::add_product(1.0F, lowrank::const_weight_view<float>(w), x, y, ws);
///
/// Every other product with a weight (sketches, power iterations, adapters, serving) goes through here. docs/kernel.md
/// explains how it works and what it reaches.

#include <algorithm>

#include <Eigen/Core>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/detail/skinny_kernel.hpp>
#include <lowrank/core/detail/skinny_small.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Where our kernels take over from Eigen's: the matrix does not stay in a second-level cache, and has enough rows and
/// columns to pay for packing X. Depends on shapes alone, so that one product always goes one way.
template <real S>
[[nodiscard]] inline bool is_big(index rows, index cols) noexcept {
    constexpr index bytes = 2 << 20, least = 64;
    return rows >= least && cols >= least && rows >= bytes / static_cast<index>(sizeof(S)) / cols;
}

/// Columns of X that share one pass over the matrix.
inline constexpr index most_columns = 256;

/// Y += alpha R X, or Y += alpha R^T X, for R row-major.
template <storage T, bool Across>
void skinny_dispatch(compute_t<T> alpha, const strided_view<const T, 1>& r, const const_column_view<compute_t<T>>& x,
                     const column_view<compute_t<T>>& y, workspace& ws) {
    using S = compute_t<T>;
    if (r.rows() == 0 || r.cols() == 0 || x.cols() == 0) {
        return;
    }
    if (x.cols() == 1) {
        if constexpr (Across) {
            vector_across<T>(alpha, r, x, y, ws);
        } else {
            vector_along<T>(alpha, r, x, y, ws);
        }
    } else if (is_big<S>(r.rows(), r.cols())) {
        for (index c = 0; c < x.cols(); c += most_columns) {
            const index k = std::min(most_columns, x.cols() - c);
            const const_column_view<S> xs(x.data() + c * x.outerStride(), x.rows(), k, x.outerStride());
            const column_view<S> ys(const_cast<S*>(y.data()) + c * y.outerStride(), y.rows(), k, y.outerStride());
            if constexpr (Across) {
                skinny_across<T>(alpha, r, xs, ys, ws);
            } else {
                skinny_along<T>(alpha, r, xs, ys, ws);
            }
        }
    } else {
        workspace::frame scope(ws);
        const S* data = nullptr;
        index stride = 0;
        if constexpr (real<T>) {
            data = r.data();
            stride = r.outerStride();
        } else {
            const auto copy = widened_copy<T>(r, ws);
            data = copy.data();
            stride = copy.outerStride();
        }
        if constexpr (Across) {
            small_product<S, 0>(alpha, {data, r.cols(), r.rows(), stride}, x, y, ws);
        } else {
            small_product<S, 1>(alpha, {data, r.rows(), r.cols(), stride}, x, y, ws);
        }
    }
}

#ifdef LOWRANK_EXTERN_TEMPLATES
#define LOWRANK_DETAIL_EXTERN_SKINNY(T, Across)                                                    \
    extern template void skinny_dispatch<T, Across>(compute_t<T>, const strided_view<const T, 1>&, \
                                                    const const_column_view<compute_t<T>>&,        \
                                                    const column_view<compute_t<T>>&, workspace&);
LOWRANK_DETAIL_EXTERN_SKINNY(float, false)
LOWRANK_DETAIL_EXTERN_SKINNY(float, true)
LOWRANK_DETAIL_EXTERN_SKINNY(double, false)
LOWRANK_DETAIL_EXTERN_SKINNY(double, true)
LOWRANK_DETAIL_EXTERN_SKINNY(half, false)
LOWRANK_DETAIL_EXTERN_SKINNY(half, true)
LOWRANK_DETAIL_EXTERN_SKINNY(bfloat16, false)
LOWRANK_DETAIL_EXTERN_SKINNY(bfloat16, true)
#undef LOWRANK_DETAIL_EXTERN_SKINNY
#endif

/// A column-major matrix is a row-major one, transposed.
template <storage T, int Order>
[[nodiscard]] strided_view<const T, 1> as_rows(const strided_view<const T, Order>& m) noexcept {
    return Order == 1 ? strided_view<const T, 1>(m.data(), m.rows(), m.cols(), m.outerStride())
                      : strided_view<const T, 1>(m.data(), m.cols(), m.rows(), m.outerStride());
}

}  // namespace detail

/// Y += alpha M X for M (m x n) in either storage order, X (n x k), Y (m x k).
///
/// 16-bit storage is widened piece by piece and multiplied in float. Sums are at most 1024 terms long (32 where the
/// packets run across the sum) before they are added to others, so that rounding errors grow more slowly than in one
/// long sum.
/// \pre  Shapes agree; Y overlaps neither M nor X.
/// \cost 2 m n k flops; M is read once for each 256 columns. Scratch: at most (m + n) k scalars and a few hundred
///       kilobytes for each task; nothing from the heap once the workspace is warm.
/// \note Bit-equal for one binary and CPU, whatever the executor.
template <storage T, int Order>
void add_product(compute_t<T> alpha, const detail::strided_view<const T, Order>& m, const_column_view<compute_t<T>> x,
                 column_view<compute_t<T>> y, workspace& ws) {
    detail::expects_shape("add_product", "x", x.rows(), x.cols(), m.cols(), y.cols());
    detail::expects_shape("add_product", "y", y.rows(), y.cols(), m.rows(), x.cols());
    detail::skinny_dispatch<T, Order == 0>(alpha, detail::as_rows<T, Order>(m), x, y, ws);
}

/// Y += alpha M^T X for M (m x n) in either storage order, X (m x k), Y (n x k).
///
/// \pre  Shapes agree; Y overlaps neither M nor X.
/// \cost As `add_product`.
/// \note Bit-equal for one binary and CPU, whatever the executor.
template <storage T, int Order>
void add_transposed_product(compute_t<T> alpha, const detail::strided_view<const T, Order>& m,
                            const_column_view<compute_t<T>> x, column_view<compute_t<T>> y, workspace& ws) {
    detail::expects_shape("add_transposed_product", "x", x.rows(), x.cols(), m.rows(), y.cols());
    detail::expects_shape("add_transposed_product", "y", y.rows(), y.cols(), m.cols(), x.cols());
    detail::skinny_dispatch<T, Order == 1>(alpha, detail::as_rows<T, Order>(m), x, y, ws);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_SKINNY_PRODUCT_HPP

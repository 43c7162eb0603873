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

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Y += alpha R X, or with Across Y += alpha R^T X, for R row-major.
template <storage T, bool Across>
void skinny_dispatch(compute_t<T> alpha, const strided_view<const T, 1>& r, const const_column_view<compute_t<T>>& x,
                     const column_view<compute_t<T>>& y, workspace& ws);

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

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/core/skinny_product.ipp>
#endif

#endif  // LOWRANK_CORE_SKINNY_PRODUCT_HPP

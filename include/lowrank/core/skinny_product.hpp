// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_SKINNY_PRODUCT_HPP
#define LOWRANK_CORE_SKINNY_PRODUCT_HPP

/// \file
/// The hot kernel: a big matrix times few columns, Y += alpha M X and Y += alpha M^T X.
///
///     lowrank::workspace ws;
///     lowrank::add_product(1.0F, lowrank::const_weight_view<float>(w), x, y, ws);
///
/// Every other product with a weight (sketches, power iterations, adapters, serving) goes through here.

#include <algorithm>

#include <Eigen/Core>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Rows of a 16-bit weight widened at a time: a panel of this many rows stays in cache.
inline constexpr index panel_rows = 64;

template <storage T, int Order>
using stored_view = strided_view<const T, Order>;

template <storage T, int Order>
void add_product_dense(compute_t<T> alpha, const stored_view<T, Order>& m, const_column_view<compute_t<T>> x,
                       column_view<compute_t<T>> y) {
    if (x.cols() == 1) {
        y.col(0).noalias() += alpha * (m * x.col(0));
    } else {
        y.noalias() += alpha * (m * x);
    }
}

}  // namespace detail

/// Y += alpha M X for M (m x n) in either storage order, X (n x k), Y (m x k).
///
/// 16-bit storage is widened panel by panel and multiplied in float.
/// \pre  Shapes agree; Y overlaps neither M nor X.
/// \cost 2 m n k flops; M is read once.
/// \note Bit-equal for one binary and CPU, whatever the executor.
template <storage T, int Order>
void add_product(compute_t<T> alpha, const detail::strided_view<const T, Order>& m, const_column_view<compute_t<T>> x,
                 column_view<compute_t<T>> y, workspace& ws) {
    using S = compute_t<T>;
    detail::expects_shape("add_product", "x", x.rows(), x.cols(), m.cols(), y.cols());
    detail::expects_shape("add_product", "y", y.rows(), y.cols(), m.rows(), x.cols());
    if (m.rows() == 0 || m.cols() == 0 || x.cols() == 0) {
        return;
    }
    if constexpr (real<T>) {
        (void)ws;
        detail::add_product_dense<T, Order>(alpha, m, x, y);
    } else {
        const index panels = (m.rows() + detail::panel_rows - 1) / detail::panel_rows;
        workspace::frame scope(ws);
        column_view<S> wide_panel = ws.take<S>(m.cols(), detail::panel_rows);
        for (index p = 0; p < panels; ++p) {
            const index first = p * detail::panel_rows;
            const index rows = std::min(detail::panel_rows, m.rows() - first);
            auto wide = wide_panel.leftCols(rows);
            wide = m.middleRows(first, rows).transpose().template cast<S>();
            y.middleRows(first, rows).noalias() += alpha * (wide.transpose() * x);
        }
    }
}

/// Y += alpha M^T X for M (m x n) in either storage order, X (m x k), Y (n x k).
///
/// \pre  Shapes agree; Y overlaps neither M nor X.
/// \cost 2 m n k flops; M is read once.
template <storage T, int Order>
void add_transposed_product(compute_t<T> alpha, const detail::strided_view<const T, Order>& m,
                            const_column_view<compute_t<T>> x, column_view<compute_t<T>> y, workspace& ws) {
    using S = compute_t<T>;
    detail::expects_shape("add_transposed_product", "x", x.rows(), x.cols(), m.rows(), y.cols());
    detail::expects_shape("add_transposed_product", "y", y.rows(), y.cols(), m.cols(), x.cols());
    if (m.rows() == 0 || m.cols() == 0 || x.cols() == 0) {
        return;
    }
    if constexpr (real<T>) {
        (void)ws;
        const detail::strided_view<const T, 1 - Order> transposed(m.data(), m.cols(), m.rows(), m.outerStride());
        detail::add_product_dense<T, 1 - Order>(alpha, transposed, x, y);
    } else {
        const index panels = (m.rows() + detail::panel_rows - 1) / detail::panel_rows;
        workspace::frame scope(ws);
        column_view<S> wide_panel = ws.take<S>(m.cols(), detail::panel_rows);
        for (index p = 0; p < panels; ++p) {
            const index first = p * detail::panel_rows;
            const index rows = std::min(detail::panel_rows, m.rows() - first);
            auto wide = wide_panel.leftCols(rows);
            wide = m.middleRows(first, rows).transpose().template cast<S>();
            y.noalias() += alpha * (wide * x.middleRows(first, rows));
        }
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_SKINNY_PRODUCT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_OPERATOR_COLUMNS_HPP
#define LOWRANK_CORE_OPERATOR_COLUMNS_HPP

/// \file
/// The columns of a linear operator that can only be multiplied with.
///
///     lowrank::matrix<float> dense = lowrank::dense_of(lowrank::as_operator(w));       // by products with unit vectors

#include <algorithm>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Calls `body(first, columns)` for panels of columns of M, from left to right. \cost One product with cols() unit
/// vectors.
template <real S, class F>
void for_column_panels(operator_reference<S> m, F&& body) {
    const index panel = std::min<index>(64, m.cols());
    workspace ws;
    auto unit = ws.take<S>(m.cols(), panel);
    auto columns = ws.take<S>(m.rows(), panel);
    for (index first = 0; first < m.cols(); first += panel) {
        const index count = std::min(panel, m.cols() - first);
        unit.setZero();
        columns.setZero();
        for (index j = 0; j < count; ++j) {
            unit(first + j, j) = S(1);
        }
        const const_column_view<S> some = detail::some_columns(columns, 0, count);
        m.add_product(S(1), detail::some_columns(unit, 0, count), detail::some_columns(columns, 0, count), ws);
        body(first, some);
    }
}

/// The rows x cols matrix of a linear operator. \cost One product with cols() unit vectors.
template <linear_operator M>
[[nodiscard]] matrix<typename M::scalar> dense_of(const M& m) {
    using S = typename M::scalar;
    matrix<S> w(m.rows(), m.cols());
    for_column_panels<S>(m, [&](index first, const const_column_view<S>& columns) {
        std::copy_n(columns.data(), columns.rows() * columns.cols(), w.data() + first * w.rows());
    });
    return w;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_OPERATOR_COLUMNS_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DETAIL_REFLECTIONS_HPP
#define LOWRANK_FACTOR_DETAIL_REFLECTIONS_HPP

/// \file
/// Householder reflections, one at a time and by blocks: H = I - scale v v^T, H_1 .. H_w = I - V T V^T.
///
///     double beta;
///     double scale = make_reflection(x, n, beta);      // H x = (beta, 0, ..); x is v now
///     apply_block<double>(v, scales, false, z);        // Z := H_1 .. H_w Z
///
/// Schreiber, Van Loan, SIAM J. Sci. Stat. Comput. 10 (1989), the compact WY form.

#include <algorithm>
#include <cmath>
#include <limits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Turns x (n >= 1 entries) into the reflection that maps it to (beta, 0, ..): x becomes v with v(0) = 1. Returns its
/// scale. \pre x is of magnitude about one, or zero.
template <real S>
S make_reflection(S* x, index n, S& beta) {
    const S head = x[0];
    const S rest = dot_of(x + 1, x + 1, n - 1);
    x[0] = S(1);
    if (rest <= std::numeric_limits<S>::min()) {  // at magnitude one this is far below rounding
        std::fill(x + 1, x + n, S(0));
        beta = head;
        return S(0);
    }
    beta = head > S(0) ? -std::sqrt(head * head + rest) : std::sqrt(head * head + rest);
    for (index i = 1; i < n; ++i) {
        x[i] /= head - beta;
    }
    return (beta - head) / beta;
}

/// Columns [col, col + width) of `a` from row `row` on as the vectors of reflections: zeros above v(0) = 1.
template <real S>
[[nodiscard]] matrix<S> reflections_of(const matrix<S>& a, index row, index col, index width) {
    matrix<S> v;
    v.setZero(a.rows() - row, width);
    for (index j = 0; j < width; ++j) {
        std::copy(&a.coeffRef(0, col + j) + row + j, &a.coeffRef(0, col + j) + a.rows(), &v.coeffRef(j, j));
        v(j, j) = S(1);
    }
    return v;
}

/// Z := H_1 .. H_w Z, or its transpose H_w .. H_1 Z, for reflections in the columns of V.
template <real S>
void apply_block(const matrix<S>& v, const S* scale, bool transpose, const dense_view<S>& z) {
    const index width = v.cols();
    const matrix<S> inside = product(transposed(v), v);
    matrix<S> t;
    t.setZero(width, width);
    for (index j = 0; j < width; ++j) {  // T_j = (T, -s T V^T v_j; 0, s)
        add_product(-scale[j], dense_view<const S>(t).block(0, 0, j, j), dense_view<const S>(inside).block(0, j, j, 1),
                    dense_view<S>(t).block(0, j, j, 1));
        t(j, j) = scale[j];
    }
    const matrix<S> along = product(transposed(v), z);
    const matrix<S> turned = transpose ? product(transposed(t), along) : product(t, along);
    add_product(S(-1), v, turned, z);
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_DETAIL_REFLECTIONS_HPP

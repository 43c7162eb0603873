// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DETAIL_TRIDIAGONAL_HPP
#define LOWRANK_FACTOR_DETAIL_TRIDIAGONAL_HPP

/// \file
/// A symmetric matrix to tridiagonal form and back: A = Q T Q^T with Q a product of reflections.
///
///     tridiagonal_form<double> t = tridiagonalize(a);  // a now holds the reflections
///     apply_reflections(a, t.scale, z);                // Z := Q Z
///
/// Half of the arithmetic is a product of the remaining matrix with one vector, read once per column; the other half,
/// and all of the way back, are matrix products with blocks of reflections.
///
/// Dongarra, Sorensen, Hammarling, J. Comput. Appl. Math. 27 (1989). Schreiber, Van Loan, SIAM J. Sci. Stat. Comput. 10
/// (1989), the compact WY form.

#include <algorithm>
#include <cmath>
#include <limits>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

template <real S>
struct tridiagonal_form {
    vector<S> diagonal;  ///< n entries.
    vector<S> off;       ///< n entries, the last of them zero.
    vector<S> scale;     ///< H_i = I - scale_i v_i v_i^T, for i < n - 1.
};

/// Turns the column x into the reflection that maps it to (beta, 0, ..): x becomes v with v(0) = 1. Returns its scale.
template <real S, class X>
S make_reflection(X x, S& beta) {
    const index n = x.size();
    const S head = x(0);
    const S rest = n > 1 ? x.tail(n - 1).squaredNorm() : S(0);
    x(0) = S(1);
    if (rest <= std::numeric_limits<S>::min()) {  // at magnitude one this is far below rounding
        x.tail(n - 1).setZero();
        beta = head;
        return S(0);
    }
    beta = head > S(0) ? -std::sqrt(head * head + rest) : std::sqrt(head * head + rest);
    x.tail(n - 1) /= head - beta;
    return (beta - head) / beta;
}

/// T with A = Q T Q^T for the symmetric A of magnitude about one, of which the lower triangle is read. Afterwards
/// column i of A holds v_i from row i + 1 on.
template <real S>
[[nodiscard]] tridiagonal_form<S> tridiagonalize(matrix<S>& a) {
    constexpr index block = 32;
    const index n = a.rows();
    tridiagonal_form<S> t{vector<S>(n), vector<S>::Zero(n), vector<S>::Zero(n)};
    matrix<S> w(n, block);
    matrix<S> left;
    matrix<S> right;
    vector<S> inside(block);
    for (index top = 0; top < n - 1; top += block) {
        const index width = std::min(block, n - 1 - top);
        for (index j = 0; j < width; ++j) {
            // A stands as it was before this block; what its columns owe to the block is V W^T + W V^T.
            const index at = top + j;
            const index rest = n - at - 1;
            if (j > 0) {
                auto column = a.col(at).tail(n - at);
                column.noalias() -= a.block(at, top, n - at, j) * w.row(at).head(j).transpose();
                column.noalias() -= w.block(at, 0, n - at, j) * a.row(at).segment(top, j).transpose();
            }
            t.diagonal(at) = a(at, at);
            auto v = a.col(at).tail(rest);
            const S scale = make_reflection<S>(v, t.off(at));
            t.scale(at) = scale;
            auto y = w.col(j).tail(rest);
            if (scale == S(0)) {
                y.setZero();
                continue;
            }
            y.noalias() = a.bottomRightCorner(rest, rest).template selfadjointView<Eigen::Lower>() * v;
            if (j > 0) {
                const auto vs = a.block(at + 1, top, rest, j);
                const auto ws = w.block(at + 1, 0, rest, j);
                inside.head(j).noalias() = ws.transpose() * v;
                y.noalias() -= vs * inside.head(j);
                inside.head(j).noalias() = vs.transpose() * v;
                y.noalias() -= ws * inside.head(j);
            }
            y *= scale;
            y -= (S(0.5) * scale * y.dot(v)) * v;
        }
        const index first = top + width;
        const index rest = n - first;
        left.resize(rest, 2 * width);
        left << a.block(first, top, rest, width), w.block(first, 0, rest, width);
        right.resize(rest, 2 * width);
        right << w.block(first, 0, rest, width), a.block(first, top, rest, width);
        a.bottomRightCorner(rest, rest).template triangularView<Eigen::Lower>() -= left * right.transpose();
    }
    if (n > 0) {
        t.diagonal(n - 1) = a(n - 1, n - 1);
    }
    return t;
}

/// Z := Q Z for the reflections that `tridiagonalize` left in `a`.
template <real S>
void apply_reflections(const matrix<S>& a, const vector<S>& scale, matrix<S>& z) {
    constexpr index block = 64;
    const index n = a.rows();
    matrix<S> v;
    matrix<S> t;
    matrix<S> inside;
    matrix<S> turned;
    const index blocks = (n - 1 + block - 1) / block;
    for (index b = blocks; b-- > 0;) {
        const index first = b * block;
        const index width = std::min(block, n - 1 - first);
        const index rest = n - first - 1;
        v = a.block(first + 1, first, rest, width).template triangularView<Eigen::Lower>();
        // H_1 .. H_w = I - V T V^T.
        inside.noalias() = v.transpose() * v;
        t.setZero(width, width);
        for (index j = 0; j < width; ++j) {
            const S s = scale(first + j);
            t.col(j).head(j).noalias() = (-s) * (t.topLeftCorner(j, j) * inside.col(j).head(j));
            t(j, j) = s;
        }
        auto rows = z.bottomRows(rest);
        inside.noalias() = v.transpose() * rows;
        turned.noalias() = t * inside;
        rows.noalias() -= v * turned;
    }
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_DETAIL_TRIDIAGONAL_HPP

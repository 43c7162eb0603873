// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_UPDATE_HPP
#define LOWRANK_FACTOR_SKETCHED_UPDATE_HPP

/// \file
/// An SVD after the matrix has changed a little: rows or columns appended, a rank-one or low-rank change added.
///
///     auto g = lowrank::append_rows(f, new_rows);                        // of [U diag(s) V^T; B]
///     auto h = lowrank::add_low_rank(f, {.left = a, .right = b});        // of U diag(s) V^T + a b
///     auto k = lowrank::truncated(h, 16);                                // keep 16 of them
///
/// Each is the exact SVD of the changed matrix, through QR of the grown factors and a core of size k + p, in place of a
/// decomposition of m x n. Brand, Linear Algebra Appl. 415 (2006).

#include <algorithm>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The first k triplets. \pre 0 <= k <= f.s.size()
template <real S>
[[nodiscard]] svd_result<S> truncated(const svd_result<S>& f, index k) {
    detail::expects_in_range("truncated", "k", k, index{0}, f.s.size());
    return {.u = f.u.leftCols(k), .s = f.s.head(k), .v = f.v.leftCols(k), .why = f.why};
}

/// The SVD of U diag(s) V^T + D, with up to k + rank(D) triplets (at most min(m, n)).
///
/// \pre    `f` succeeded; D has its shape.
/// \return `non_finite` if D holds NaN or infinity.
/// \cost   6 (k + p)^2 (m + n) flops for a D of rank p.
template <real S>
[[nodiscard]] svd_result<S> add_low_rank(const svd_result<S>& f, const low_rank<S>& d) {
    detail::expects(static_cast<bool>(f.why), "add_low_rank: the decomposition must have succeeded");
    return svd(add(low_rank<S>{.left = f.u * f.s.asDiagonal(), .right = f.v.transpose()}, d));
}

/// The SVD of U diag(s) V^T + alpha a b^T. \pre a has m entries, b has n. \return, \cost As `add_low_rank`, p = 1.
template <real S>
[[nodiscard]] svd_result<S> rank_one_update(const svd_result<S>& f, const vector<S>& a, const vector<S>& b,
                                            S alpha = S(1)) {
    return add_low_rank(f, low_rank<S>{.left = a * alpha, .right = b.transpose()});
}

/// The SVD of [U diag(s) V^T; B] for B p x n.
///
/// \pre    `f` succeeded; B has f.v.rows() columns.
/// \return `non_finite` if B holds NaN or infinity.
/// \cost   6 (k + p)^2 (m + p + n) flops.
template <real S>
[[nodiscard]] svd_result<S> append_rows(const svd_result<S>& f, const matrix<S>& b) {
    detail::expects(static_cast<bool>(f.why), "append_rows: the decomposition must have succeeded");
    detail::expects_shape("append_rows", "b", b.rows(), b.cols(), b.rows(), f.v.rows());
    const index m = f.u.rows();
    const index k = f.s.size();
    low_rank<S> grown{.left = matrix<S>::Zero(m + b.rows(), k + b.rows()), .right = matrix<S>(k + b.rows(), b.cols())};
    grown.left.topLeftCorner(m, k) = f.u * f.s.asDiagonal();
    grown.left.bottomRightCorner(b.rows(), b.rows()).setIdentity();
    grown.right.topRows(k) = f.v.transpose();
    grown.right.bottomRows(b.rows()) = b;
    return svd(grown);
}

/// The SVD of [U diag(s) V^T, B] for B m x p. \pre, \return, \cost As `append_rows`, transposed.
template <real S>
[[nodiscard]] svd_result<S> append_columns(const svd_result<S>& f, const matrix<S>& b) {
    detail::expects_shape("append_columns", "b", b.rows(), b.cols(), f.u.rows(), b.cols());
    auto g = append_rows(svd_result<S>{.u = f.v, .s = f.s, .v = f.u, .why = f.why}, matrix<S>(b.transpose()));
    g.u.swap(g.v);
    detail::fix_signs(g.u, g.v);
    return g;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_UPDATE_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_UPDATE_HPP
#define LOWRANK_FACTOR_SKETCHED_UPDATE_HPP

/// \file
/// An SVD after the matrix has changed a little: rows or columns appended, a rank-one or low-rank change added.
///
///     auto f = lowrank::svd(w);
///     auto g = lowrank::append_rows(f, new_rows);                        // of [U diag(s) V^T; B]
///     auto h = lowrank::add_low_rank(f, a);                              // of U diag(s) V^T + left * right
///     auto k = lowrank::truncated(h, 16);                                // keep 16 of them
///
/// Each is the exact SVD of the changed matrix, through QR of the grown factors and a core of size k + p, in place of a
/// decomposition of m x n. Brand, Linear Algebra Appl. 415 (2006).

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The first k triplets. \pre 0 <= k <= f.s.size()
template <real S>
[[nodiscard]] svd_result<S> truncated(const svd_result<S>& f, index k);

/// The SVD of U diag(s) V^T + D, with up to k + rank(D) triplets (at most min(m, n)).
///
/// \pre    `f` succeeded; D has its shape.
/// \return `non_finite` if D holds NaN or infinity.
/// \cost   6 (k + p)^2 (m + n) flops for a D of rank p.
template <real S>
[[nodiscard]] svd_result<S> add_low_rank(const svd_result<S>& f, const low_rank<S>& d);

/// The SVD of U diag(s) V^T + alpha a b^T. \pre a has m entries, b has n. \return, \cost As `add_low_rank`, p = 1.
template <real S>
[[nodiscard]] svd_result<S> rank_one_update(const svd_result<S>& f, const vector<S>& a, const vector<S>& b,
                                            S alpha = S(1));

/// The SVD of [U diag(s) V^T; B] for B p x n.
///
/// \pre    `f` succeeded; B has f.v.rows() columns.
/// \return `non_finite` if B holds NaN or infinity.
/// \cost   6 (k + p)^2 (m + p + n) flops.
template <real S>
[[nodiscard]] svd_result<S> append_rows(const svd_result<S>& f, const matrix<S>& b);

/// The SVD of [U diag(s) V^T, B] for B m x p. \pre, \return, \cost As `append_rows`, transposed.
template <real S>
[[nodiscard]] svd_result<S> append_columns(const svd_result<S>& f, const matrix<S>& b);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/update.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_UPDATE_HPP

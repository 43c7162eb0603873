// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_UPDATE_HPP
#define LOWRANK_FACTOR_SKETCHED_UPDATE_HPP

/// \file
/// An SVD after the matrix has changed a little: rows or columns appended, a rank-one or low-rank change added.
///
///     auto f = lowrank::svd(w);
///     auto g = lowrank::append_rows(f, new_rows);                        // of [U diag(s) V^T; B]
///     auto h = lowrank::add_low_rank(f, a);                              // of U diag(s) V^T + left * right
///     auto k = h.leading(16);                                            // keep 16 of them
///
/// Each is the exact SVD of the changed matrix, less what was missing of the old one, through QR of the grown factors and a core of size k + p, in place of a
/// decomposition of m x n. What was missing stays missing: `error.frobenius` is carried over. Brand, Linear Algebra Appl. 415 (2006).

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The SVD of U diag(s) V^T + D, with up to k + rank(D) triplets (at most min(m, n)).
///
/// \pre    `f` succeeded; D has its shape.
/// \return `non_finite` if D holds NaN or infinity.
/// \cost   6 (k + p)^2 (m + n) flops for a D of rank p.
template <real S>
[[nodiscard]] decomposition<S> add_low_rank(const decomposition<S>& f, const low_rank<S>& d);

/// The SVD of U diag(s) V^T + alpha a b^T. \pre a has m entries, b has n. \return, \cost As `add_low_rank`, p = 1.
template <real S>
[[nodiscard]] decomposition<S> rank_one_update(const decomposition<S>& f, const vector<S>& a, const vector<S>& b,
                                               S alpha = S(1));

/// The SVD of [U diag(s) V^T; B] for B p x n.
///
/// \pre    `f` succeeded; B has f.v.rows() columns.
/// \return `non_finite` if B holds NaN or infinity.
/// \cost   6 (k + p)^2 (m + p + n) flops.
template <real S>
[[nodiscard]] decomposition<S> append_rows(const decomposition<S>& f, const matrix<S>& b);

/// The SVD of [U diag(s) V^T, B] for B m x p. \pre, \return, \cost As `append_rows`, transposed.
template <real S>
[[nodiscard]] decomposition<S> append_columns(const decomposition<S>& f, const matrix<S>& b);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/update.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_UPDATE_HPP

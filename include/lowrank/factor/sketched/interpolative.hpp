// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_HPP
#define LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_HPP

/// \file
/// Factorizations made of the matrix's own rows and columns: pivoted QR, interpolative decomposition, CUR.
///
///     auto f = lowrank::interpolative(w, 16);          // W ~ W(:, columns) Z: 16 columns span the others
///     auto g = lowrank::cur(w, 16);                    // W ~ C U R with columns C and rows R of W
///
/// The factors are rows and columns of W, so they keep its sparsity, signs and meaning (channels, tokens). The error
/// exceeds the SVD's by a modest factor. The pivot is the column with the largest residual; the first wins a tie.
///
/// Businger, Golub, Numer. Math. 7 (1965). Voronin, Martinsson, Adv. Comput. Math. 43 (2017), for ID and CUR from it.

#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W P = Q R to rank k: Q (m x k) orthonormal, R (k x n) in the original column order, so W ~ Q R; `columns` are the
/// pivots in order, and R(:, columns) is upper triangular with descending diagonal magnitudes.
template <real S>
struct pivoted_qr_result : fallible {
    matrix<S> q = {};
    matrix<S> r = {};
    std::vector<index> columns = {};
    double error = 0.0;     ///< ||W - Q R||_F, exact.
    double relative = 0.0;  ///< The same over ||W||_F.
};

struct pivoted_qr_options {
    index max_rank = -1;     ///< Largest rank; negative: min(m, n).
    double tolerance = 0.0;  ///< Stop when ||W - Q R||_F <= tolerance ||W||_F. Rounding level always stops.
};

/// W ~ W(:, columns) Z with Z (k x n), the identity on the chosen columns.
template <real S>
struct interpolative_result : fallible {
    std::vector<index> columns = {};
    matrix<S> z = {};
    double error = 0.0;     ///< ||W - W(:, columns) Z||_F.
    double relative = 0.0;  ///< The same over ||W||_F.
};

/// W ~ C U R: columns C = W(:, columns), rows R = W(rows, :), and the U that is best for them.
template <real S>
struct cur_result : fallible {
    std::vector<index> columns = {};
    std::vector<index> rows = {};
    matrix<S> c = {};
    matrix<S> u = {};
    matrix<S> r = {};
    double error = 0.0;     ///< ||W - C U R||_F.
    double relative = 0.0;  ///< The same over ||W||_F.

    /// C (U R) as two factors.
    [[nodiscard]] low_rank<S> product() const;
};

namespace detail {

template <real S>
[[nodiscard]] pivoted_qr_result<S> pivoted_qr_as(matrix<double> w, const pivoted_qr_options& options);
template <real S>
[[nodiscard]] interpolative_result<S> interpolative_as(matrix<double> w, index k);
template <real S>
[[nodiscard]] cur_result<S> cur_as(matrix<double> w, index k);

}  // namespace detail

/// Rank-revealing QR with column pivoting of a dense W, stopped by rank or tolerance.
///
/// \pre    max_rank <= min(m, n), tolerance >= 0.
/// \return `non_finite` if W holds NaN or infinity, or R does not fit the scalar. Fewer columns than asked for where W has
///         lower rank.
/// \cost   4 m n k flops in double for rank k.
template <detail::dense_expression W>
[[nodiscard]] pivoted_qr_result<weight_scalar<W>> pivoted_qr(const W& w, const pivoted_qr_options& options = {}) {
    return detail::pivoted_qr_as<weight_scalar<W>>(copy_in<double>(detail::evaluated(w)), options);
}

/// The interpolative decomposition of a dense W by k of its columns. For rows, pass the transpose.
///
/// \pre    0 <= k <= min(m, n)
/// \return `non_finite` if W holds NaN or infinity. Fewer columns where W has lower rank.
/// \cost   4 m n k flops in double.
template <detail::dense_expression W>
[[nodiscard]] interpolative_result<weight_scalar<W>> interpolative(const W& w, index k) {
    return detail::interpolative_as<weight_scalar<W>>(copy_in<double>(detail::evaluated(w)), k);
}

/// The CUR decomposition by k columns and k rows, U = C^+ W R^+.
///
/// Columns by pivoting on W, rows by pivoting on the transpose of the chosen columns' span.
/// \pre    0 <= k <= min(m, n)
/// \return `non_finite` if W holds NaN or infinity, or U, which is as large as W is small, does not fit the scalar. Fewer of
///         each where W has lower rank.
/// \cost   6 m n k flops in double.
template <detail::dense_expression W>
[[nodiscard]] cur_result<weight_scalar<W>> cur(const W& w, index k) {
    return detail::cur_as<weight_scalar<W>>(copy_in<double>(detail::evaluated(w)), k);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/interpolative.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_HPP

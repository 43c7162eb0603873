// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_HPP
#define LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_HPP

/// \file
/// Factorizations made of the matrix's own rows and columns: pivoted QR, interpolative decomposition, CUR.
///
///     auto f = lowrank::interpolative(w, 16);          // W ~ W(:, columns) Z, which 16 inputs say nearly everything
///     auto g = lowrank::cur(w, 16);                    // W ~ C U R with columns C and rows R of W
///
/// Real rows and columns keep sparsity, sign and meaning (channels, tokens), at an error above the SVD's by a modest
/// factor. Pivoting picks the column of largest rest; ties go to the first.
///
/// Businger, Golub, Numer. Math. 7 (1965). Voronin, Martinsson, Adv. Comput. Math. 43 (2017), for ID and CUR from it.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W P = Q R to rank k: Q (m x k) orthonormal, R (k x n) in the original column order, so W ~ Q R; `columns` are the
/// pivots in order, and R(:, columns) is upper triangular with descending diagonal magnitudes.
template <real S>
struct pivoted_qr_result {
    matrix<S> q = {};
    matrix<S> r = {};
    std::vector<index> columns = {};
    double error = 0.0;     ///< ||W - Q R||_F, exact.
    double relative = 0.0;  ///< The same over ||W||_F.
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

struct pivoted_qr_options {
    index max_rank = -1;     ///< Largest rank; negative: min(m, n).
    double tolerance = 0.0;  ///< Stop when ||W - Q R||_F <= tolerance ||W||_F. Rounding level always stops.
};

namespace detail {

/// Gram-Schmidt with pivoting, twice; the work of `pivoted_qr`, in double.
template <std::same_as<double> S = double>
[[nodiscard]] pivoted_qr_result<S> pivoted_qr_of(only_matrix<S> a, index most, double tolerance) {
    const index n = a.cols();
    pivoted_qr_result<S> out;
    const double unit = a.size() == 0 ? 1.0 : power_of_two_scale(a.cwiseAbs().maxCoeff());
    a *= unit;
    out.q.resize(a.rows(), most);
    out.r = matrix<S>::Zero(most, n);
    vector<S> left = a.colwise().squaredNorm();  // what of each column is not represented yet
    const double whole = left.sum();
    const double floor = std::max(tolerance * tolerance, std::pow(4.0 * std::numeric_limits<double>::epsilon(), 2) *
                                                             static_cast<double>(std::max(a.rows(), n)));
    index k = 0;
    while (k < most && left.sum() > floor * whole) {
        index pivot = 0;
        left.maxCoeff(&pivot);
        auto q = out.q.col(k);
        q = a.col(pivot);
        // The rest has been updated k times; once more against all of Q makes it orthogonal to rounding.
        q -= out.q.leftCols(k) * (out.q.leftCols(k).transpose() * q);
        q.normalize();
        out.r.row(k).noalias() = q.transpose() * a;
        for (const index done : out.columns) {
            out.r(k, done) = 0.0;
        }
        a.noalias() -= q * out.r.row(k);
        a.col(pivot).setZero();
        out.columns.push_back(pivot);
        left = a.colwise().squaredNorm();  // recomputed: downdated norms lose all digits near the end
        ++k;
    }
    out.q.conservativeResize(Eigen::NoChange, k);
    out.r.conservativeResize(k, Eigen::NoChange);
    out.error = std::sqrt(left.sum()) / unit;
    out.relative = whole > 0.0 ? std::sqrt(left.sum() / whole) : 0.0;
    out.r /= unit;
    return out;
}

}  // namespace detail

/// Rank-revealing QR with column pivoting of a dense W, stopped by rank or tolerance.
///
/// \pre    most <= min(m, n), tolerance >= 0.
/// \return `non_finite` if W holds NaN or infinity. Fewer columns than asked for where W has lower rank.
/// \cost   4 m n k flops in double for rank k.
template <detail::dense_weight W>
[[nodiscard]] pivoted_qr_result<weight_scalar<W>> pivoted_qr(const W& w, const pivoted_qr_options& options = {}) {
    using S = weight_scalar<W>;
    const index full = std::min<index>(w.rows(), w.cols());
    detail::expects(options.tolerance >= 0.0, "pivoted_qr: tolerance must not be negative");
    const index most = options.max_rank < 0 ? full : options.max_rank;
    detail::expects_in_range("pivoted_qr", "max_rank", most, index{0}, full);
    if (!all_finite(w)) {
        return {
            .why = {errc::non_finite, "pivoted_qr: the matrix holds NaN or infinity; repair or exclude the weight"}};
    }
    auto f = detail::pivoted_qr_of(w.template cast<double>(), most, options.tolerance);
    return {.q = f.q.template cast<S>(),
            .r = f.r.template cast<S>(),
            .columns = std::move(f.columns),
            .error = f.error,
            .relative = f.relative,
            .why = {}};
}

/// W ~ W(:, columns) Z with Z (k x n), the identity on the chosen columns.
template <real S>
struct interpolative_result {
    std::vector<index> columns = {};
    matrix<S> z = {};
    double error = 0.0;     ///< ||W - W(:, columns) Z||_F.
    double relative = 0.0;  ///< The same over ||W||_F.
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

/// The interpolative decomposition of a dense W by k of its columns. For rows, pass the transpose.
///
/// \pre    0 <= k <= min(m, n)
/// \return `non_finite` if W holds NaN or infinity. Fewer columns where W has lower rank.
/// \cost   4 m n k flops in double.
template <detail::dense_weight W>
[[nodiscard]] interpolative_result<weight_scalar<W>> interpolative(const W& w, index k) {
    using S = weight_scalar<W>;
    detail::expects_in_range("interpolative", "rank", k, index{0}, std::min<index>(w.rows(), w.cols()));
    if (!all_finite(w)) {
        return {
            .why = {errc::non_finite, "interpolative: the matrix holds NaN or infinity; repair or exclude the weight"}};
    }
    auto f = detail::pivoted_qr_of(w.template cast<double>(), k, 0.0);
    const index found = static_cast<index>(f.columns.size());
    matrix<double> triangle(found, found);
    for (index j = 0; j < found; ++j) {
        triangle.col(j) = f.r.col(f.columns[static_cast<std::size_t>(j)]);
    }
    triangle.triangularView<Eigen::Upper>().solveInPlace(f.r);
    for (index j = 0; j < found; ++j) {  // exactly, not only to rounding
        f.r.col(f.columns[static_cast<std::size_t>(j)]) = vector<double>::Unit(found, j);
    }
    return {.columns = std::move(f.columns),
            .z = f.r.template cast<S>(),
            .error = f.error,
            .relative = f.relative,
            .why = {}};
}

/// W ~ C U R: columns C = W(:, columns), rows R = W(rows, :), and the U that is best for them.
template <real S>
struct cur_result {
    std::vector<index> columns = {};
    std::vector<index> rows = {};
    matrix<S> c = {};
    matrix<S> u = {};
    matrix<S> r = {};
    double error = 0.0;     ///< ||W - C U R||_F.
    double relative = 0.0;  ///< The same over ||W||_F.
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }

    /// C (U R) as two factors.
    [[nodiscard]] low_rank<S> product() const { return {.left = c, .right = u * r}; }
};

/// The CUR decomposition by k columns and k rows, U = C^+ W R^+.
///
/// Columns by pivoting on W, rows by pivoting on the transpose of the chosen columns' span.
/// \pre    0 <= k <= min(m, n)
/// \return `non_finite` if W holds NaN or infinity. Fewer of each where W has lower rank.
/// \cost   6 m n k flops in double.
template <detail::dense_weight W>
[[nodiscard]] cur_result<weight_scalar<W>> cur(const W& w, index k) {
    using S = weight_scalar<W>;
    detail::expects_in_range("cur", "rank", k, index{0}, std::min<index>(w.rows(), w.cols()));
    if (!all_finite(w)) {
        return {.why = {errc::non_finite, "cur: the matrix holds NaN or infinity; repair or exclude the weight"}};
    }
    const matrix<double> wide = w.template cast<double>();
    const double unit = wide.size() == 0 ? 1.0 : detail::power_of_two_scale(wide.cwiseAbs().maxCoeff());
    const matrix<double> a = wide * unit;
    cur_result<S> out;
    auto by_column = detail::pivoted_qr_of(a, k, 0.0);
    out.columns = std::move(by_column.columns);
    // Rows on which the column space is well posed: pivots of Q^T.
    auto by_row = detail::pivoted_qr_of(by_column.q.transpose(), by_column.q.cols(), 0.0);
    out.rows = std::move(by_row.columns);
    const index found = static_cast<index>(out.columns.size());
    matrix<double> c(a.rows(), found);
    matrix<double> rt(a.cols(), static_cast<index>(out.rows.size()));
    for (index i = 0; i < found; ++i) {
        c.col(i) = a.col(out.columns[static_cast<std::size_t>(i)]);
    }
    for (index i = 0; i < rt.cols(); ++i) {
        rt.col(i) = a.row(out.rows[static_cast<std::size_t>(i)]).transpose();
    }
    const auto qc = thin_qr<double>(c);
    const auto qr = thin_qr<double>(rt);
    const matrix<double> core = qc.q.transpose() * a * qr.q;
    matrix<double> u = qc.r.triangularView<Eigen::Upper>().solve(core);
    u = qr.r.triangularView<Eigen::Upper>().solve(u.transpose()).transpose().eval();
    const double rest = (a - qc.q * core * qr.q.transpose()).norm();
    const double whole = a.norm();
    out.c = (c / unit).template cast<S>();
    out.u = (u * unit).template cast<S>();
    out.r = (rt.transpose() / unit).template cast<S>();
    out.error = rest / unit;
    out.relative = whole > 0.0 ? rest / whole : 0.0;
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_HPP

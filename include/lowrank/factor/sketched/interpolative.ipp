// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_IPP
#define LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_IPP

#include <lowrank/factor/sketched/interpolative.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The columns of A in the order given.
LOWRANK_API [[nodiscard]] matrix<double> gather_columns(const matrix<double>& a, const std::vector<index>& columns);
LOWRANK_API [[nodiscard]] pivoted_qr_result<double> pivoted_qr_of(matrix<double> a, index max_rank, double tolerance);

LOWRANK_BODY matrix<double> gather_columns(const matrix<double>& a, const std::vector<index>& columns) {
    matrix<double> out(a.rows(), static_cast<index>(columns.size()));
    for (std::size_t j = 0; j < columns.size(); ++j) {
        out.col(static_cast<index>(j)) = a.col(columns[j]);
    }
    return out;
}

/// Gram-Schmidt with pivoting, twice.
LOWRANK_BODY pivoted_qr_result<double> pivoted_qr_of(matrix<double> a, index max_rank, double tolerance) {
    const index m = a.rows(), n = a.cols();
    pivoted_qr_result<double> out;
    const double unit = power_of_two_scale(max_abs(a));
    a *= unit;
    matrix<double> q(m, max_rank), rt;  // R^T, so that its columns are contiguous
    rt.setZero(n, max_rank);
    vector<double> left = column_squares(a);  // what of each column is not represented yet
    const auto sum = [&] {
        double total = 0.0;
        for (const double x : left) {
            total += x;
        }
        return total;
    };
    const double whole = sum();
    const double floor = std::max(tolerance * tolerance, std::pow(4.0 * std::numeric_limits<double>::epsilon(), 2) *
                                                             static_cast<double>(std::max(m, n)));
    double rest = whole;
    index k = 0;
    for (; k < max_rank && rest > floor * whole; rest = sum()) {
        const index pivot = std::max_element(left.begin(), left.end()) - left.begin();
        q.col(k) = a.col(pivot);
        // The rest has been updated k times; once more against all of Q makes it orthogonal to rounding.
        const auto basis = dense_view<const double>(q).middle_cols(0, k),
                   column = dense_view<const double>(q).middle_cols(k, 1);
        add_product(-1.0, basis, product(transposed(basis), column), dense_view<double>(q).middle_cols(k, 1));
        q.col(k) /= norm_of(column);
        add_product(1.0, transposed(a), column, dense_view<double>(rt).middle_cols(k, 1));
        for (const index done : out.columns) {
            rt(done, k) = 0.0;
        }
        for (index j = 0; j < n; ++j) {  // A := A - q r
            axpy(-rt(j, k), q.data() + k * m, a.data() + j * m, m);
        }
        a.col(pivot).setZero();
        out.columns.push_back(pivot);
        left = column_squares(a);  // recomputed: downdated norms lose all digits near the end
        ++k;
    }
    out.q = columns_of(q, 0, k);
    out.r = copy_in<double>(transposed(dense_view<const double>(rt).middle_cols(0, k)));
    out.r /= unit;
    out.error = std::sqrt(rest) / unit;
    out.relative = whole > 0.0 ? std::sqrt(rest / whole) : 0.0;
    return out;
}

template <real S>
pivoted_qr_result<S> pivoted_qr_as(matrix<double> w, const pivoted_qr_options& options) {
    expects(options.tolerance >= 0.0, "pivoted_qr: tolerance must not be negative");
    const index full = std::min(w.rows(), w.cols());
    const index max_rank = options.max_rank < 0 ? full : options.max_rank;
    expects_in_range("pivoted_qr", "max_rank", max_rank, index{0}, full);
    if (!all_finite(w)) {
        return {{.why = non_finite_matrix("pivoted_qr")}};
    }
    auto f = pivoted_qr_of(std::move(w), max_rank, options.tolerance);
    pivoted_qr_result<S> out;
    out.q = copy_in<S>(f.q);
    out.r = copy_in<S>(f.r);
    if (!all_finite(out.r)) {
        return {{.why = value_beyond_range("pivoted_qr")}};
    }
    out.columns = std::move(f.columns);
    out.error = f.error;
    out.relative = f.relative;
    return out;
}

template <real S>
interpolative_result<S> interpolative_as(matrix<double> w, index k) {
    expects_rank("interpolative", k, w.rows(), w.cols());
    if (!all_finite(w)) {
        return {{.why = non_finite_matrix("interpolative")}};
    }
    const double unit = power_of_two_scale(max_abs(w));
    w *= unit;  // Z has no unit, and R keeps its digits
    auto f = pivoted_qr_of(std::move(w), k, 0.0);
    // Z = R(:, columns)^-1 R, the identity on the columns exactly, not only to rounding.
    solve_left_upper(gather_columns(f.r, f.columns), f.r);
    for (std::size_t j = 0; j < f.columns.size(); ++j) {
        f.r.col(f.columns[j]).setZero();
        f.r(static_cast<index>(j), f.columns[j]) = 1.0;
    }
    interpolative_result<S> out;
    out.columns = std::move(f.columns);
    out.z = copy_in<S>(f.r);
    out.error = f.error / unit;
    out.relative = f.relative;
    return out;
}

template <real S>
cur_result<S> cur_as(matrix<double> w, index k) {
    expects_rank("cur", k, w.rows(), w.cols());
    if (!all_finite(w)) {
        return {{.why = non_finite_matrix("cur")}};
    }
    const double unit = power_of_two_scale(max_abs(w));
    w *= unit;
    cur_result<S> out;
    auto by_column = pivoted_qr_of(w, k, 0.0);
    out.columns = std::move(by_column.columns);
    // Rows on which the column space is well posed: pivots of Q^T.
    out.rows = pivoted_qr_of(copy_in<double>(transposed(by_column.q)), by_column.q.cols(), 0.0).columns;
    matrix<double> c = gather_columns(w, out.columns);
    matrix<double> rt = gather_columns(copy_in<double>(transposed(w)), out.rows);
    const auto qc = thin_qr<double>(c);
    const auto qr = thin_qr<double>(rt);
    // The best core between the bases is Q_c^T W Q_r, and U = R_c^-1 core R_r^-T.
    const matrix<double> core = product(product(transposed(qc.q), w), qr.q);
    matrix<double> u = core;
    solve_left_upper(qc.r, u);
    matrix<double> ut = copy_in<double>(transposed(u));
    solve_left_upper(qr.r, ut);
    ut *= unit;
    out.u = copy_in<S>(transposed(ut));
    if (!all_finite(out.u)) {
        return {{.why = failed_in(
                     "cur", errc::non_finite,
                     "U, which is as large as W is small, exceeds the range of the scalar; scale the matrix up")}};
    }
    // The error of the U that is returned.
    u = copy_in<double>(out.u);
    u /= unit;
    const double whole = norm_of(w);
    add_product(-1.0, product(c, u), transposed(rt), w);
    const double rest = norm_of(w);
    c /= unit;
    rt /= unit;
    out.c = copy_in<S>(c);
    out.r = copy_in<S>(transposed(rt));
    out.error = rest / unit;
    out.relative = whole > 0.0 ? rest / whole : 0.0;
    return out;
}

}  // namespace detail

template <real S>
low_rank<S> cur_result<S>::product() const {
    return {.left = c, .right = lowrank::product(u, r)};
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_INTERPOLATIVE_OF(S)                                                                    \
    template struct cur_result<S>;                                                                     \
    template pivoted_qr_result<S> detail::pivoted_qr_as<S>(matrix<double>, const pivoted_qr_options&); \
    template interpolative_result<S> detail::interpolative_as<S>(matrix<double>, index);               \
    template cur_result<S> detail::cur_as<S>(matrix<double>, index);
LOWRANK_INTERPOLATIVE_OF(float)
LOWRANK_INTERPOLATIVE_OF(double)
#undef LOWRANK_INTERPOLATIVE_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_INTERPOLATIVE_IPP

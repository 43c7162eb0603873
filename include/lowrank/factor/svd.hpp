// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SVD_HPP
#define LOWRANK_FACTOR_SVD_HPP

/// \file
/// The thin singular value decomposition W = U diag(s) V^T, accurate to working precision in float and double.
///
///     auto f = lowrank::svd(w);                        // any storage order, f16/bf16/f32/f64 storage
///     if (!f) return log(f.why.message);               // NaN in the weight
///     auto w8 = f.u.leftCols(8) * f.s.head(8).asDiagonal() * f.v.leftCols(8).transpose();
///
/// How: the eigenvectors V0 of the Gram matrix, in double, turn A into B = A V0 with nearly orthogonal columns. For
/// float input B has all the digits that float can hold, and its normalized (where that is not safe: QR) columns are U.
/// For double input V0 is only a preconditioner: B = Q R, and one-sided Jacobi on R^T removes what squaring the
/// condition number lost. Every step is an orthogonal transformation of A itself, so no digit depends on the Gram
/// matrix. The Jacobi rotations are applied many at a time, as a product with the exponential of a small skew matrix.
///
/// Drmac, Veselic: New fast and accurate Jacobi SVD algorithm. SIAM J. Matrix Anal. Appl. 29 (2008).

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_map.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// U (m x p), s (p, descending, not negative), V (n x p) with W = U diag(s) V^T and p = min(m, n).
///
/// Sign convention: in each column of U the entry of largest magnitude (the first of them) is positive.
/// On failure all three are empty and `why` says why.
template <real S>
struct svd_result {
    matrix<S> u = {};
    vector<S> s = {};
    matrix<S> v = {};
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

/// The scalar the decomposition of a dense weight computes in.
template <detail::dense_weight W>
using weight_scalar = compute_t<typename std::remove_cvref_t<W>::Scalar>;

namespace detail {

/// A product of columns that are nearly orthogonal, and the rotations that made them so.
struct jacobi_state {
    matrix<double> y;  ///< Columns being made orthogonal.
    matrix<double> j;  ///< y = (original) * j.
};

/// The angle of the rotation that makes columns p, q orthogonal, |angle| <= pi/4: y_p' = c y_p - s y_q.
[[nodiscard]] inline double jacobi_tangent(double pp, double qq, double pq) {
    const double zeta = (qq - pp) / (2.0 * pq);
    return (zeta >= 0.0 ? 1.0 : -1.0) / (std::abs(zeta) + std::hypot(1.0, zeta));
}

/// Brings a nearly orthogonal matrix to orthogonality: J := J (3 I - J^T J) / 2, squaring the defect.
template <real S>
void newton_schulz(matrix<S>& j) {
    matrix<S> g = matrix<S>::Identity(j.cols(), j.cols()) * S(1.5);
    g.noalias() -= S(0.5) * (j.transpose() * j);
    const matrix<S> old = j;
    j.noalias() = old * g;
}

/// One-sided Jacobi until all columns of y are orthogonal to `tolerance` relative to their own norms; columns below
/// `negligible` count as zero. False if 60 sweeps were not enough.
template <real S>
bool orthogonalize_columns(jacobi_state& state, S tolerance, S negligible) {
    auto& [y, j] = state;
    const index n = y.cols();
    matrix<S> c(n, n);
    matrix<S> e(n, n);
    for (int sweep = 0; sweep < 60; ++sweep) {
        c.noalias() = y.transpose() * y;
        e.setZero();
        const vector<S> norms = c.diagonal().cwiseSqrt();
        bool done = true;
        bool small = true;  // no single angle is large: all of them can go at once
        for (index q = 1; q < n; ++q) {
            if (norms(q) <= negligible) {
                continue;
            }
            for (index p = 0; p < q; ++p) {
                if (norms(p) <= negligible || std::abs(c(p, q)) <= tolerance * norms(p) * norms(q)) {
                    continue;
                }
                done = false;
                const S t = jacobi_tangent(c(p, p), c(q, q), c(p, q));
                small = small && std::abs(t) < S(0.05) && std::abs(c(p, q)) < S(1e-2) * norms(p) * norms(q);
                e(p, q) = t;
                e(q, p) = -t;
            }
        }
        if (done) {
            return true;
        }
        const S size = e.norm();
        if (small && size < S(0.1)) {
            // exp(E) to third order, polished to an orthogonal matrix.
            matrix<S> step = matrix<S>::Identity(n, n) + e;
            step.noalias() += S(0.5) * (e * e);
            for (S defect = size * size * size * size; defect > S(0.1) * std::numeric_limits<S>::epsilon();
                 defect *= defect) {
                newton_schulz(step);
            }
            matrix<S> next = y * step;
            y.swap(next);
            next.noalias() = j * step;
            j.swap(next);
            continue;
        }
        for (index q = 1; q < n; ++q) {
            for (index p = 0; p < q; ++p) {
                if (e(p, q) == S(0)) {
                    continue;
                }
                // The columns have moved since c was formed.
                const S pq = y.col(p).dot(y.col(q));
                const S pp = y.col(p).squaredNorm();
                const S qq = y.col(q).squaredNorm();
                if (!(std::abs(pq) > tolerance * std::sqrt(pp) * std::sqrt(qq))) {
                    continue;
                }
                const S t = jacobi_tangent(pp, qq, pq);
                const Eigen::JacobiRotation<S> rotation(S(1) / std::hypot(S(1), t), t / std::hypot(S(1), t));
                y.applyOnTheRight(p, q, rotation);
                j.applyOnTheRight(p, q, rotation);
            }
        }
    }
    return false;
}

/// Columns of b, orthogonal to `safe` accuracy where their norm is large, into orthonormal columns and norms. Sorts.
template <real S>
void normalize_columns(matrix<S>& b, vector<S>& s, matrix<S>& follows, S safe_ratio) {
    const index n = b.cols();
    s = b.colwise().norm();
    std::vector<index> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), index{0});
    std::stable_sort(order.begin(), order.end(), [&](index x, index y) { return s(x) > s(y); });
    if (!std::is_sorted(order.begin(), order.end())) {
        matrix<S> old_b = b;
        matrix<S> old_follows = follows;
        const vector<S> old_s = s;
        for (index i = 0; i < n; ++i) {
            const index from = order[static_cast<std::size_t>(i)];
            b.col(i) = old_b.col(from);
            follows.col(i) = old_follows.col(from);
            s(i) = old_s(from);
        }
    }
    if (n == 0) {
        return;
    }
    if (s(n - 1) > safe_ratio * s(0)) {
        b = b * s.cwiseInverse().asDiagonal();
        return;
    }
    // Small columns are not orthogonal to the large ones in their own measure: QR in descending order makes them so
    // at a cost of |b_i . b_j| / |b_i| in the product, and completes the basis where columns vanish.
    auto qr = thin_qr_of<S>(std::move(b), true);
    b = std::move(qr.q);
    for (index i = 0; i < n; ++i) {
        s(i) = std::abs(qr.r(i, i));
        if (qr.r(i, i) < S(0)) {
            b.col(i) = -b.col(i);
        }
    }
    for (index i = 1; i < n; ++i) {  // equal up to rounding is sorted
        s(i) = std::min(s(i), s(i - 1));
    }
}

/// A V0 with A (m x n, m >= n) in its own scalar and the product in double, by panels of rows.
template <real S>
[[nodiscard]] matrix<double> wide_product(const matrix<S>& a, const matrix<double>& v) {
    matrix<double> b(a.rows(), v.cols());
    if constexpr (std::same_as<S, double>) {
        b.noalias() = a * v;
    } else {
        constexpr index panel = 512;
        matrix<double> wide;
        for (index first = 0; first < a.rows(); first += panel) {
            const index rows = std::min(panel, a.rows() - first);
            wide = a.middleRows(first, rows).template cast<double>();
            b.middleRows(first, rows).noalias() = wide * v;
        }
    }
    return b;
}

/// The SVD of a finite tall matrix (m >= n >= 1) in double. For S = double the entries are of magnitude about one.
template <real S>
[[nodiscard]] svd_result<double> tall_svd(const matrix<S>& a) {
    svd_result<double> out;
    matrix<double> gram;
    if (a.rows() > 2 * a.cols() && std::same_as<S, double>) {
        // The Gram matrix of R costs less than that of A, and everything after it happens on R.
        auto qr = thin_qr_of<S>(a, true);
        out = tall_svd<S>(qr.r);
        if (out) {
            matrix<double> u = qr.q.template cast<double>() * out.u;
            out.u.swap(u);
        }
        return out;
    }
    gram_lower(a, gram);
    auto eigen = symmetric_eigen_of<double>(gram, true);
    if (!eigen) {
        out.why = std::move(eigen.why);
        return out;
    }
    gram.resize(0, 0);
    out.v = std::move(eigen.vectors);
    if constexpr (std::same_as<S, double>) {
        newton_schulz(out.v);  // what V0 lacks in orthogonality would go straight into the singular values
    }
    out.u = wide_product(a, out.v);
    if constexpr (std::same_as<S, float>) {
        // Columns i, j of B are orthogonal to eps64 s_1^2 / (s_i s_j), far below eps32 down to this ratio.
        normalize_columns(out.u, out.s, out.v, 3e-5);
    } else {
        const double eps = std::numeric_limits<double>::epsilon();
        auto qr = thin_qr_of<double>(std::move(out.u), true);
        const index n = a.cols();
        jacobi_state state{qr.r.transpose(), matrix<double>::Identity(n, n)};
        qr.r.resize(0, 0);
        const double largest = state.y.colwise().norm().maxCoeff();
        if (!orthogonalize_columns<double>(state, eps * std::max(4.0, std::sqrt(static_cast<double>(n))),
                                           0.5 * eps * largest)) {
            out = {};
            out.why = {errc::no_convergence, "svd: Jacobi used up 60 sweeps; please report the matrix"};
            return out;
        }
        // R^T J = Y = U_x diag(s), so A = (Q J) diag(s) (V0 U_x)^T.
        normalize_columns(state.y, out.s, state.j, 2.0 * eps * static_cast<double>(n));
        newton_schulz(state.j);  // long products of rotations drift by a few eps per factor
        out.u.noalias() = qr.q * state.j;
        const matrix<double> v0 = std::move(out.v);
        out.v.noalias() = v0 * state.y;
        newton_schulz(out.v);
    }
    return out;
}

/// The work of `svd` on a finite matrix that is at least as tall as wide.
template <real S>
[[nodiscard]] svd_result<S> svd_of_tall(matrix<S> a) {
    const index m = a.rows();
    const index n = a.cols();
    svd_result<S> out;
    if (n == 0) {
        out.u.resize(m, 0);
        out.v.resize(n, 0);
        return out;
    }
    // Doubles are brought to magnitude one, so that no square overflows or underflows; floats cannot in double.
    double scale = 1.0;
    if constexpr (std::same_as<S, double>) {
        scale = power_of_two_scale(a.cwiseAbs().maxCoeff());
        a *= scale;
    }
    svd_result<double> wide = tall_svd<S>(a);
    if (!wide) {
        out.why = std::move(wide.why);
        return out;
    }
    wide.s /= scale;
    if (!(wide.s(0) <= static_cast<double>(std::numeric_limits<S>::max()))) {
        out.why = {errc::non_finite,
                   "svd: the largest singular value exceeds the range of the scalar; scale the matrix down"};
        return out;
    }
    out.u = wide.u.template cast<S>();
    out.s = wide.s.template cast<S>();
    out.v = wide.v.template cast<S>();
    return out;
}

/// Makes the largest entry of each column of u positive, and turns v with it.
template <real S>
void fix_signs(matrix<S>& u, matrix<S>& v) {
    for (index i = 0; i < u.cols() && u.rows() > 0; ++i) {
        index at = 0;
        u.col(i).cwiseAbs().maxCoeff(&at);
        if (u(at, i) < S(0)) {
            u.col(i) = -u.col(i);
            v.col(i) = -v.col(i);
        }
    }
}

}  // namespace detail

/// W = U diag(s) V^T for a dense W (m x n) of any storage type and order.
///
/// \return `non_finite` if W holds NaN or infinity, or if s_1 does not fit the scalar; `no_convergence` if an
///         iteration does not end. Residual and orthogonality are within 20 eps sqrt(max(m, n)), singular values within
///         4 eps of those of W relative to the largest, at every scale. Empty matrices give empty factors.
/// \cost   With p = min(m, n), q = max(m, n): about 4 q p^2 + 9 p^3 flops in double, twice that for double input.
/// \note   Bit-equal for one binary and CPU. Where two entries of a column of U tie for the largest magnitude, or
///         singular values coincide, rounding decides.
template <detail::dense_weight W>
[[nodiscard]] svd_result<weight_scalar<W>> svd(const W& w) {
    using S = weight_scalar<W>;
    if (!all_finite(w)) {
        return {.why = {errc::non_finite, "svd: the matrix holds NaN or infinity; repair or exclude the weight"}};
    }
    const bool tall = w.rows() >= w.cols();
    matrix<S> a;
    if (tall) {
        a = w.template cast<S>();
    } else {
        a = w.transpose().template cast<S>();
    }
    svd_result<S> out = detail::svd_of_tall<S>(std::move(a));
    if (!tall) {
        out.u.swap(out.v);
    }
    detail::fix_signs(out.u, out.v);
    return out;
}

/// The singular values of W alone, descending: the same numbers as `svd(w).s`, to rounding.
///
/// \return As `svd`.
/// \cost   That of `svd`.
template <detail::dense_weight W>
[[nodiscard]] result<vector<weight_scalar<W>>> singular_values(const W& w) {
    auto f = svd(w);
    if (!f) {
        return std::move(f.why);
    }
    return std::move(f.s);
}

#ifdef LOWRANK_EXTERN_TEMPLATES
extern template svd_result<float> detail::svd_of_tall<float>(matrix<float>);
extern template svd_result<double> detail::svd_of_tall<double>(matrix<double>);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SVD_HPP

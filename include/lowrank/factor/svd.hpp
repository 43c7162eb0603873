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
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
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
template <real S>
struct jacobi_state {
    matrix<S> y;  ///< Columns being made orthogonal.
    matrix<S> j;  ///< y = (original) * j; empty if nobody asks for it.
};

/// The angle of the rotation that makes columns p, q orthogonal, |angle| <= pi/4: y_p' = c y_p - s y_q.
template <real S>
[[nodiscard]] S jacobi_tangent(S pp, S qq, S pq) {
    const S zeta = (qq - pp) / (S(2) * pq);
    return (zeta >= S(0) ? S(1) : S(-1)) / (std::abs(zeta) + std::hypot(S(1), zeta));
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
bool orthogonalize_columns(jacobi_state<S>& state, S tolerance, S negligible) {
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
            if (j.size() > 0) {
                next.noalias() = j * step;
                j.swap(next);
            }
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
                if (j.size() > 0) {
                    j.applyOnTheRight(p, q, rotation);
                }
            }
        }
    }
    return false;
}

/// Columns of b, orthogonal to `safe` accuracy where their norm is large, into orthonormal columns and norms. Sorts.
///
/// Columns whose norm is not above `vanishing` times the largest become any directions that complete the basis; so do
/// those that b lacks against `follows`, whose norm counts as zero.
template <real S>
void normalize_columns(matrix<S>& b, vector<S>& s, matrix<S>& follows, S safe_ratio, S vanishing = S(0)) {
    const index n = follows.cols(), given = b.cols();
    s.setZero(n);
    s.head(given) = b.colwise().norm();
    std::vector<index> order(static_cast<std::size_t>(given));
    std::iota(order.begin(), order.end(), index{0});
    std::stable_sort(order.begin(), order.end(), [&](index x, index y) { return s(x) > s(y); });
    if (!std::is_sorted(order.begin(), order.end())) {
        matrix<S> old_b = b;
        matrix<S> old_follows = follows;
        const vector<S> old_s = s;
        for (index i = 0; i < given; ++i) {
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
    index large = n;
    while (large > 1 && s(large - 1) <= vanishing * s(0)) {
        --large;
    }
    b.conservativeResize(Eigen::NoChange, large);
    matrix<S> r;
    householder_qr<S>(b, &r, true, n);
    for (index i = 0; i < large; ++i) {
        s(i) = std::abs(r(i, i));
        if (r(i, i) < S(0)) {
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

/// The Gram matrix alone: all digits of float input; eigenvectors too if asked for.
template <real S>
[[nodiscard]] symmetric_eigen_result gram_eigen(const matrix<S>& a, bool want_vectors) {
    matrix<double> gram;
    gram_lower(a, gram);
    return symmetric_eigen_of<double>(gram, want_vectors);
}

/// The SVD of a finite tall matrix (m >= n >= 1) in double, or its values alone. For S = double the entries are of
/// magnitude about one.
template <real S>
[[nodiscard]] svd_result<double> tall_svd(const matrix<S>& a, bool want_vectors) {
    svd_result<double> out;
    constexpr bool wide = std::same_as<S, double>;
    if (wide && a.rows() > 2 * a.cols()) {
        // The Gram matrix of R costs less than that of A, and everything after it happens on R.
        auto qr = thin_qr_of<S>(a, want_vectors);
        out = tall_svd<S>(qr.r, want_vectors);
        if (out && want_vectors) {
            matrix<double> u = qr.q.template cast<double>() * out.u;
            out.u.swap(u);
        }
        return out;
    }
    auto eigen = gram_eigen(a, wide || want_vectors);
    if (!eigen) {
        out.why = std::move(eigen.why);
        return out;
    }
    if (!wide && !want_vectors) {
        // Off by sqrt(eps64) s_1 where they vanish, which is below eps32 s_1.
        out.s = eigen.values.cwiseMax(0.0).cwiseSqrt();
        return out;
    }
    out.v = std::move(eigen.vectors);
    if constexpr (wide) {
        newton_schulz(out.v);  // what V0 lacks in orthogonality would go straight into the singular values
    }
    index resolved = a.cols();
    if constexpr (!wide) {
        // The eigenvalues know columns of B below 3e-8 of the largest; see below why nobody needs these.
        while (resolved > 1 && eigen.values(resolved - 1) <= 9e-16 * eigen.values(0)) {
            --resolved;
        }
    }
    out.u = resolved < a.cols() ? wide_product<S>(a, out.v.leftCols(resolved)) : wide_product(a, out.v);
    if constexpr (!wide) {
        // Columns i, j of B are orthogonal to eps64 s_1^2 / (s_i s_j), far below eps32 down to this ratio.
        // What is below eps32 s_1 / 4 is the rounding of a matrix that was computed in float, and its directions with it:
        // any will do, at a residual of at most eps32 / 2 each.
        normalize_columns(out.u, out.s, out.v, 3e-5, 3e-8);
        for (index i = resolved; i < a.cols(); ++i) {
            out.s(i) = std::min(out.s(i - 1), std::sqrt(std::max(eigen.values(i), 0.0)));
        }
    } else {
        const S eps = std::numeric_limits<S>::epsilon();
        auto qr = thin_qr_of<S>(std::move(out.u), want_vectors);
        const index n = a.cols();
        jacobi_state<S> state{qr.r.transpose(), {}};
        if (want_vectors) {
            state.j.setIdentity(n, n);
        }
        qr.r.resize(0, 0);
        const S largest = state.y.colwise().norm().maxCoeff();
        if (!orthogonalize_columns<S>(state, eps * std::max(S(4), std::sqrt(static_cast<S>(n))),
                                      S(0.5) * eps * largest)) {
            out = {};
            out.why = {errc::no_convergence, "svd: Jacobi used up 60 sweeps; please report the matrix"};
            return out;
        }
        if (!want_vectors) {
            out.s = state.y.colwise().norm();
            std::sort(out.s.data(), out.s.data() + n, [](S x, S y) { return x > y; });
            return out;
        }
        // R^T J = Y = U_x diag(s), so A = (Q J) diag(s) (V0 U_x)^T.
        normalize_columns(state.y, out.s, state.j, S(2) * eps * static_cast<S>(n));
        newton_schulz(state.j);  // long products of rotations drift by a few eps per factor
        out.u.noalias() = qr.q * state.j;
        const matrix<S> v0 = std::move(out.v);
        out.v.noalias() = v0 * state.y;
        newton_schulz(out.v);
    }
    return out;
}

/// `tall_svd` at every scale and of every width, in the scalar of the matrix.
template <real S>
[[nodiscard]] svd_result<S> scaled_svd(matrix<S> a, bool want_vectors) {
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
    svd_result<double> wide = tall_svd<S>(a, want_vectors);
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

/// The work of `svd` on a finite matrix that is at least as tall as wide, for extern templates.
template <real S>
[[nodiscard]] svd_result<S> svd_of_tall(matrix<S> a) {
    return scaled_svd<S>(std::move(a), true);
}

/// The same for `singular_values`: u and v are empty.
template <real S>
[[nodiscard]] svd_result<S> values_of_tall(matrix<S> a) {
    return scaled_svd<S>(std::move(a), false);
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

/// Any storage order and type, any shape; signs are left to the caller.
template <real S, class W>
[[nodiscard]] svd_result<S> svd_of_dense(const char* function, const W& w, bool want_vectors) {
    if (!all_finite(w)) {
        return {.why = {errc::non_finite,
                        std::string(function) + ": the matrix holds NaN or infinity; repair or exclude the weight"}};
    }
    const bool tall = w.rows() >= w.cols();
    matrix<S> a;
    if (tall) {
        a = w.template cast<S>();
    } else {
        a = w.transpose().template cast<S>();
    }
    svd_result<S> out = want_vectors ? svd_of_tall<S>(std::move(a)) : values_of_tall<S>(std::move(a));
    if (!tall) {
        out.u.swap(out.v);
    }
    return out;
}

}  // namespace detail

/// W = U diag(s) V^T for a dense W (m x n) of any storage type and order.
///
/// \return `non_finite` if W holds NaN or infinity, or if s_1 does not fit the scalar; `no_convergence` if an
///         iteration does not end. Residual and orthogonality are within 20 eps sqrt(max(m, n)), singular values within
///         4 eps of those of W relative to the largest, at every scale. Empty matrices give empty factors.
/// \cost   With p = min(m, n), q = max(m, n): about 3 q p^2 + 5 p^3 flops in double for float input, 4 q p^2 more where
///         s_p < 3e-5 s_1; three to four times that for double input.
/// \note   Bit-equal for one binary and CPU. Where two entries of a column of U tie for the largest magnitude, or
///         singular values coincide, rounding decides.
template <detail::dense_weight W>
[[nodiscard]] svd_result<weight_scalar<W>> svd(const W& w) {
    auto out = detail::svd_of_dense<weight_scalar<W>>("svd", w, true);
    detail::fix_signs(out.u, out.v);
    return out;
}

/// The singular values of W alone, descending: those of `svd` to within 4 eps of the largest.
///
/// \return As `svd`.
/// \cost   With p = min(m, n), q = max(m, n): q p^2 + 4/3 p^3 flops in double for float input. Double input needs a
///         basis to keep its digits: half of what `svd` costs.
/// \note   Bit-equal for one binary and CPU.
template <detail::dense_weight W>
[[nodiscard]] result<vector<weight_scalar<W>>> singular_values(const W& w) {
    using S = weight_scalar<W>;
    auto f = detail::svd_of_dense<S>("singular_values", w, false);
    if (!f) {
        return std::move(f.why);
    }
    return std::move(f.s);
}

#ifdef LOWRANK_EXTERN_TEMPLATES
extern template svd_result<float> detail::svd_of_tall<float>(matrix<float>);
extern template svd_result<float> detail::values_of_tall<float>(matrix<float>);
extern template svd_result<double> detail::svd_of_tall<double>(matrix<double>);
extern template svd_result<double> detail::values_of_tall<double>(matrix<double>);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SVD_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SVD_IPP
#define LOWRANK_FACTOR_SVD_IPP

#include <lowrank/factor/svd.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// A product of columns that are nearly orthogonal, and the rotations that made them so.
template <real S>
struct jacobi_state {
    matrix<S> y;  ///< Columns being made orthogonal.
    matrix<S> j;  ///< y = (original) * j; empty if it is not wanted.
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
    matrix<S> g;
    g.setZero(j.cols(), j.cols());
    for (index i = 0; i < j.cols(); ++i) {
        g(i, i) = S(1.5);
    }
    add_product(S(-0.5), transposed(j), j, g);
    j = product(j, g);
}

/// One-sided Jacobi until all columns of y are orthogonal to `tolerance` relative to their own norms; columns below
/// `negligible` count as zero. False if 60 sweeps were not enough.
template <real S>
bool orthogonalize_columns(jacobi_state<S>& state, S tolerance, S negligible) {
    auto& [y, j] = state;
    const index n = y.cols();
    matrix<S> c(n, n);
    matrix<S> e(n, n);
    vector<S> norms(n);
    for (int sweep = 0; sweep < 60; ++sweep) {
        c.setZero();
        e.setZero();
        gemm<S, S, S>(S(1), transposed(y), y, c, true);
        for (index i = 0; i < n; ++i) {
            norms(i) = std::sqrt(c(i, i));
        }
        bool done = true;
        bool small = true;  // no single angle is large: all of them can go at once
        for (index q = 1; q < n; ++q) {
            if (norms(q) <= negligible) {
                continue;
            }
            for (index p = 0; p < q; ++p) {
                if (norms(p) <= negligible || std::abs(c(q, p)) <= tolerance * norms(p) * norms(q)) {
                    continue;
                }
                done = false;
                const S t = jacobi_tangent(c(p, p), c(q, q), c(q, p));
                small = small && std::abs(t) < S(0.05) && std::abs(c(q, p)) < S(1e-2) * norms(p) * norms(q);
                e(p, q) = t;
                e(q, p) = -t;
            }
        }
        if (done) {
            return true;
        }
        const S size = std::sqrt(dot_of(e.data(), e.data(), e.size()));
        if (small && size < S(0.1)) {
            // exp(E) to third order, polished to an orthogonal matrix.
            matrix<S> step = e;
            for (index i = 0; i < n; ++i) {
                step(i, i) += S(1);
            }
            add_product(S(0.5), e, e, step);
            for (S defect = size * size * size * size; defect > S(0.1) * std::numeric_limits<S>::epsilon();
                 defect *= defect) {
                newton_schulz(step);
            }
            y = product(y, step);
            if (j.size() > 0) {
                j = product(j, step);
            }
            continue;
        }
        for (index q = 1; q < n; ++q) {
            for (index p = 0; p < q; ++p) {
                if (e(p, q) == S(0)) {
                    continue;
                }
                // The columns have moved since c was formed.
                S *yp = &y.coeffRef(0, p), *yq = &y.coeffRef(0, q);
                const S pq = dot_of(yp, yq, y.rows());
                const S pp = dot_of(yp, yp, y.rows());
                const S qq = dot_of(yq, yq, y.rows());
                if (!(std::abs(pq) > tolerance * std::sqrt(pp) * std::sqrt(qq))) {
                    continue;
                }
                const S t = jacobi_tangent(pp, qq, pq);
                const S cosine = S(1) / std::hypot(S(1), t), sine = t / std::hypot(S(1), t);
                rotate(yp, yq, y.rows(), cosine, sine);
                if (j.size() > 0) {
                    rotate(&j.coeffRef(0, p), &j.coeffRef(0, q), j.rows(), cosine, sine);
                }
            }
        }
    }
    return false;
}

/// The norms of the columns of b.
template <real S>
[[nodiscard]] vector<S> norms_of_columns(const matrix<S>& b) {
    const vector<double> squares = column_squares(b);
    vector<S> norms(b.cols());
    std::transform(squares.begin(), squares.end(), norms.begin(),
                   [](double x) { return static_cast<S>(std::sqrt(x)); });
    return norms;
}

template <real S>
void normalize_columns(matrix<S>& b, vector<S>& s, matrix<S>& follows, S safe_ratio, S vanishing) {
    const index n = follows.cols(), given = b.cols();
    s.setZero(n);
    s.head(given) = norms_of_columns(b);
    std::vector<index> order(static_cast<std::size_t>(given));
    std::iota(order.begin(), order.end(), index{0});
    std::stable_sort(order.begin(), order.end(), [&](index x, index y) { return s(x) > s(y); });
    if (!std::is_sorted(order.begin(), order.end())) {
        matrix<S> old_b = b;
        matrix<S> old_follows = follows;
        const vector<S> old_s = s;
        for (index i = 0; i < given; ++i) {
            const index from = order[static_cast<std::size_t>(i)];
            std::copy_n(old_b.data() + from * b.rows(), b.rows(), b.data() + i * b.rows());
            std::copy_n(old_follows.data() + from * follows.rows(), follows.rows(),
                        follows.data() + i * follows.rows());
            s(i) = old_s(from);
        }
    }
    if (n == 0) {
        return;
    }
    if (s(n - 1) > safe_ratio * s(0)) {
        for (index i = 0; i < n; ++i) {
            const S inverse = S(1) / s(i);
            std::for_each_n(b.data() + i * b.rows(), b.rows(), [inverse](S& x) { x *= inverse; });
        }
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
            std::for_each_n(b.data() + i * b.rows(), b.rows(), [](S& x) { x = -x; });
        }
    }
    for (index i = 1; i < n; ++i) {  // equal up to rounding is sorted
        s(i) = std::min(s(i), s(i - 1));
    }
}

/// The SVD of a finite tall matrix (m >= n >= 1) in double, or its values alone. For S = double the entries are of
/// magnitude about one.
template <real S>
[[nodiscard]] decomposition<double> tall_svd(const char* function, const matrix<S>& a, bool want_vectors) {
    decomposition<double> out;
    constexpr bool wide = std::same_as<S, double>;
    if (wide && a.rows() > 2 * a.cols()) {
        // The Gram matrix of R costs less than that of A, and everything after it happens on R.
        auto qr = thin_qr_of<S>(a, want_vectors);
        out = tall_svd<S>(function, qr.r, want_vectors);
        if (out && want_vectors) {
            out.u = product_in<double>(qr.q, out.u);
        }
        return out;
    }
    auto eigen = symmetric_eigen_of(function, gram(a), wide || want_vectors);
    if (!eigen) {
        return std::move(eigen.why);
    }
    if (!wide && !want_vectors) {
        // Off by sqrt(eps64) s_1 where they vanish, which is below eps32 s_1.
        out.s = std::move(eigen.values);
        std::for_each_n(out.s.data(), out.s.size(), [](double& x) { x = std::sqrt(std::max(x, 0.0)); });
        return out;
    }
    out.v = std::move(eigen.vectors);
    if constexpr (wide) {
        newton_schulz(out.v);  // what V0 lacks in orthogonality would go straight into the singular values
    }
    index resolved = a.cols();
    if constexpr (!wide) {
        // The eigenvalues know columns of B below 3e-8 of the largest; see below why these are not needed.
        while (resolved > 1 && eigen.values(resolved - 1) <= 9e-16 * eigen.values(0)) {
            --resolved;
        }
    }
    out.u = product_in<double>(a, dense_view<const double>(out.v).middle_cols(0, resolved));
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
        jacobi_state<S> state{copy_in<S>(transposed(qr.r)), {}};
        if (want_vectors) {
            state.j.setIdentity(n, n);
        }
        qr.r.resize(0, 0);
        const vector<S> norms = norms_of_columns(state.y);
        const S largest = *std::max_element(norms.begin(), norms.end());
        if (!orthogonalize_columns<S>(state, eps * std::max(S(4), std::sqrt(static_cast<S>(n))),
                                      S(0.5) * eps * largest)) {
            return failed_in(function, errc::no_convergence, "Jacobi used up 60 sweeps; please report the matrix");
        }
        if (!want_vectors) {
            out.s = norms_of_columns(state.y);
            std::sort(out.s.data(), out.s.data() + n, [](S x, S y) { return x > y; });
            return out;
        }
        // R^T J = Y = U_x diag(s), so A = (Q J) diag(s) (V0 U_x)^T.
        normalize_columns(state.y, out.s, state.j, S(2) * eps * static_cast<S>(n));
        newton_schulz(state.j);  // long products of rotations drift by a few eps per factor
        out.u = product(qr.q, state.j);
        out.v = product(out.v, state.y);
        newton_schulz(out.v);
    }
    return out;
}

template <real S>
decomposition<S> svd_of_tall(const char* function, matrix<S> a, bool want_vectors) {
    const index m = a.rows(), n = a.cols();
    if (n == 0) {
        return {matrix<S>(m, 0), vector<S>(0), matrix<S>(n, 0)};
    }
    // Doubles are brought to magnitude one, so that no square overflows or underflows; floats cannot in double.
    double scale = 1.0;
    if constexpr (std::same_as<S, double>) {
        scale = power_of_two_scale(max_abs(a));
        a *= scale;
    }
    decomposition<double> wide = tall_svd<S>(function, a, want_vectors);
    if (!wide) {
        return std::move(wide.why);
    }
    wide.s /= scale;
    if (!(wide.s(0) <= static_cast<double>(std::numeric_limits<S>::max()) && is_finite(norm_of(wide.s)))) {
        return value_beyond_range(function);
    }
    decomposition<S> out;
    out.u = copy_in<S>(wide.u);
    out.s = head_in<S>(wide.s, wide.s.size());
    out.v = copy_in<S>(wide.v);
    out.error.deviation = static_cast<double>(std::numeric_limits<S>::epsilon());
    return out;
}

template <real S>
void fix_signs(matrix<S>& u, matrix<S>& v) {
    for (index i = 0; i < u.cols(); ++i) {
        S *from = u.data() + i * u.rows(), *end = from + u.rows();
        const S* largest = std::max_element(from, end, [](S x, S y) { return std::abs(x) < std::abs(y); });
        if (largest != end && *largest < S(0)) {
            std::for_each(from, end, [](S& x) { x = -x; });
            std::for_each_n(v.data() + i * v.rows(), v.rows(), [](S& x) { x = -x; });
        }
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_SVD_OF(S)                                                         \
    template void normalize_columns<S>(matrix<S>&, vector<S>&, matrix<S>&, S, S); \
    template decomposition<S> svd_of_tall<S>(const char*, matrix<S>, bool);       \
    template void fix_signs<S>(matrix<S>&, matrix<S>&);
LOWRANK_SVD_OF(float)
LOWRANK_SVD_OF(double)
#undef LOWRANK_SVD_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_SVD_IPP

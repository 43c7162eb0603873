// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_ORTHONORMALIZE_IPP
#define LOWRANK_FACTOR_ORTHONORMALIZE_IPP

#include <lowrank/factor/orthonormalize.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/factor/detail/reflections.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

template <real S>
void householder_qr(matrix<S>& a, matrix<S>* r, bool want_q, index q_cols) {
    constexpr index block = 32;
    const index m = a.rows(), n = a.cols(), p = std::min(m, n);
    const dense_view<S> all(a);
    vector<S> scale(p), along(block);
    for (index first = 0; first < p; first += block) {
        const index width = std::min(block, p - first);
        for (index j = first; j < first + width; ++j) {
            S* v = &a.coeffRef(j, j);
            S beta(0);
            scale(j) = make_reflection(v, m - j, beta);
            const index rest = first + width - j - 1;
            std::fill(along.data(), along.data() + rest, S(0));
            gemv<S>(scale(j), transposed(all.block(j, j + 1, m - j, rest)), v, 1, along.data(), 1);
            for (index c = 0; c < rest; ++c) {
                axpy(-along(c), v, &a.coeffRef(j, j + 1 + c), m - j);
            }
            *v = beta;
        }
        if (first + width < n) {
            apply_block<S>(reflections_of(a, first, first, width), scale.data() + first, true,
                           all.block(first, first + width, m - first, n - first - width));
        }
    }
    if (r != nullptr) {
        r->setZero(p, n);
        for (index j = 0; j < n; ++j) {
            std::copy_n(a.data() + j * m, std::min(j + 1, p), r->data() + j * p);
        }
    }
    if (want_q) {
        matrix<S> q;
        q.setIdentity(m, std::max(p, q_cols));
        for (index b = (p + block - 1) / block; b-- > 0;) {  // columns before the block have no entries in its rows yet
            const index first = b * block;
            apply_block<S>(reflections_of(a, first, first, std::min(block, p - first)), scale.data() + first, false,
                           dense_view<S>(q).block(first, first, m - first, q.cols() - first));
        }
        a = std::move(q);
    }
}

template <real S>
bool cholesky_pass(matrix<S>& y, matrix<double>& gram) {
    const index n = gram.cols();
    vector<double> norms(n);
    for (index j = 0; j < n; ++j) {
        norms(j) = std::sqrt(gram(j, j));
        if (!(norms(j) > 0.0)) {
            return false;
        }
    }
    for (index j = 0; j < n; ++j) {
        for (index i = j; i < n; ++i) {
            gram(i, j) = gram(i, j) / norms(i) / norms(j);
        }
    }
    if (!cholesky(gram)) {
        return false;
    }
    // The diagonal of the factor is the sine between a column and the ones before it. Below the first floor the
    // Gram matrix no longer knows it, below the second the column itself does not.
    const double gram_floor = 64.0 * std::sqrt(std::numeric_limits<double>::epsilon());
    const double column_floor = 8.0 * std::numeric_limits<S>::epsilon();
    for (index j = 0; j < n; ++j) {
        if (!(gram(j, j) > std::max(gram_floor, column_floor))) {
            return false;
        }
    }
    matrix<S> lower(n, n);
    for (index j = 0; j < n; ++j) {
        for (index i = j; i < n; ++i) {
            lower(i, j) = static_cast<S>(norms(i) * gram(i, j));
        }
    }
    solve_right_lower_transposed(lower, y);
    return true;
}

/// How far the columns behind a Gram matrix are from orthogonal in their own measure, without regard to their norms.
template <real S>
[[nodiscard]] S correlation_norm(const matrix<S>& gram) {
    S sum(0);
    for (index j = 0; j < gram.cols(); ++j) {
        for (index i = j + 1; i < gram.rows(); ++i) {
            sum += gram(i, j) / gram(i, i) * (gram(i, j) / gram(j, j));
        }
    }
    return std::sqrt(S(2) * sum);  // NaN, which is below nothing, where a column vanishes
}

template <real S>
void scale_columns(matrix<S>& y) {
    for (index j = 0; j < y.cols(); ++j) {
        S* column = y.data() + j * y.rows();
        S largest(0);
        for (index i = 0; i < y.rows(); ++i) {
            largest = std::max(largest, std::abs(column[i]));
        }
        const S unit = power_of_two_scale(largest);
        for (index i = 0; i < y.rows(); ++i) {
            column[i] *= unit;
        }
    }
}

template <real S>
orthonormalization orthonormalize_columns(matrix<S>& y) {
    if (y.size() == 0) {
        return orthonormalization::cholesky;
    }
    scale_columns(y);
    if (y.rows() >= y.cols()) {
        matrix<double> g = gram(y);
        // What is nearly orthogonal already needs one pass, which leaves eps (1 + defect).
        const bool once = correlation_norm(g) < 0.1;
        if (cholesky_pass(y, g)) {
            if (once) {
                return orthonormalization::cholesky;
            }
            g = gram(y);
            if (correlation_norm(g) < 0.25 && cholesky_pass(y, g)) {
                return orthonormalization::cholesky;
            }
        }
    }
    householder_qr<S>(y, nullptr, true);
    return orthonormalization::householder;
}

template <real S>
thin_qr_result<S> thin_qr_of(matrix<S> a, bool want_q) {
    thin_qr_result<S> out;
    if (a.size() == 0) {
        const index p = std::min(a.rows(), a.cols());
        out.q.setIdentity(a.rows(), p);
        out.r.setZero(p, a.cols());
        return out;
    }
    const S scale = power_of_two_scale(max_abs(a));
    a *= scale;
    householder_qr<S>(a, &out.r, want_q);
    out.r /= scale;
    if (want_q) {
        out.q = std::move(a);
    }
    return out;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ORTHONORMALIZE_OF(S)                                      \
    template void householder_qr<S>(matrix<S>&, matrix<S>*, bool, index); \
    template bool cholesky_pass<S>(matrix<S>&, matrix<double>&);          \
    template void scale_columns<S>(matrix<S>&);                           \
    template orthonormalization orthonormalize_columns<S>(matrix<S>&);    \
    template thin_qr_result<S> thin_qr_of<S>(matrix<S>, bool);
LOWRANK_ORTHONORMALIZE_OF(float)
LOWRANK_ORTHONORMALIZE_OF(double)
#undef LOWRANK_ORTHONORMALIZE_OF
#endif

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_ORTHONORMALIZE_IPP

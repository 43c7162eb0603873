// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_ORTHONORMALIZE_HPP
#define LOWRANK_FACTOR_ORTHONORMALIZE_HPP

/// \file
/// Orthonormal columns with the same range: Cholesky-QR2 with a checked fallback to Householder reflections.
///
///     lowrank::matrix<float> y = ...;                  // m x k, k small
///     lowrank::orthonormalize(y);                      // Y^T Y = I, range(Y) kept
///     auto [q, r] = lowrank::thin_qr(a);               // A = Q R, when R is wanted as well
///
/// Two Gram matrices and two triangular solves are matrix products, several times faster than reflections for tall
/// panels. The Gram matrix is formed in double, so float panels up to condition 1e6 take the fast path.
/// Fukaya, Nakatsukasa, Yanagisawa, Yamamoto: CholeskyQR2. ScalA 2014. Yamazaki, Tomov, Dongarra: Mixed-precision
/// Cholesky QR factorization. SIAM J. Sci. Comput. 37 (2015).

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <Eigen/Cholesky>
#include <Eigen/QR>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Q (m x p, orthonormal columns) and R (p x n, upper triangular) with A = Q R and p = min(m, n).
template <real S>
struct thin_qr_result {
    matrix<S> q = {};
    matrix<S> r = {};
};

/// How `orthonormalize` got its basis.
enum class orthonormalization { cholesky, householder };

namespace detail {

/// The power of two that brings `magnitude` into [1, 2), or 1 for zero. Multiplying by it is exact.
template <real S>
[[nodiscard]] S power_of_two_scale(S magnitude) {
    if (!(magnitude > S(0))) {
        return S(1);
    }
    // For the smallest magnitudes 2^-e itself overflows; one less leaves them below 1, which is harmless.
    return std::ldexp(S(1), std::min(-std::ilogb(magnitude), std::numeric_limits<S>::max_exponent - 1));
}

/// Householder QR, the one place that instantiates it: A becomes Q if asked for, `r` the triangle if not null. Q has
/// `q_cols` orthonormal columns if that is more than min(m, n).
template <real S>
void householder_qr(matrix<S>& a, matrix<S>* r, bool want_q, index q_cols = 0) {
    const index p = std::min(a.rows(), a.cols());
    Eigen::HouseholderQR<Eigen::Ref<matrix<S>>> qr(a);
    if (r != nullptr) {
        *r = matrix<S>(a.topRows(p).template triangularView<Eigen::Upper>());
    }
    if (want_q) {
        matrix<S> q = matrix<S>::Identity(a.rows(), std::max(p, q_cols));
        q.applyOnTheLeft(qr.householderQ().setLength(p));
        a = std::move(q);
    }
}

/// Y^T Y in double, by panels of rows; only the lower triangle is filled.
template <real S>
void gram_lower(const matrix<S>& y, matrix<double>& gram) {
    constexpr index panel = 512;
    gram.setZero(y.cols(), y.cols());
    if (y.cols() == 0) {
        return;
    }
    matrix<double> wide;
    for (index first = 0; first < y.rows(); first += panel) {
        const index rows = std::min(panel, y.rows() - first);
        wide = y.middleRows(first, rows).template cast<double>();
        gram.selfadjointView<Eigen::Lower>().rankUpdate(wide.transpose());
    }
}

/// One Cholesky-QR pass: Y := Y R^-1 with Y^T Y = R^T R. False, and Y unchanged, if the Gram matrix is not safely
/// positive definite.
template <real S>
bool cholesky_pass(matrix<S>& y, matrix<double>& gram) {
    const vector<double> norms = gram.diagonal().cwiseSqrt();
    if (!(norms.minCoeff() > 0.0)) {
        return false;
    }
    gram = norms.cwiseInverse().asDiagonal() * gram * norms.cwiseInverse().asDiagonal();
    const Eigen::LLT<Eigen::Ref<matrix<double>>> cholesky(gram);
    if (cholesky.info() != Eigen::Success) {
        return false;
    }
    // The diagonal of the factor is the sine between a column and the ones before it. Below the first floor the
    // Gram matrix no longer knows it, below the second the column itself does not.
    const double gram_floor = 64.0 * std::sqrt(std::numeric_limits<double>::epsilon());
    const double column_floor = 8.0 * std::numeric_limits<S>::epsilon();
    if (!(gram.diagonal().minCoeff() > std::max(gram_floor, column_floor))) {
        return false;
    }
    const matrix<S> lower = (norms.asDiagonal() * gram).template cast<S>();
    lower.transpose().template triangularView<Eigen::Upper>().template solveInPlace<Eigen::OnTheRight>(y);
    return true;
}

/// How far the columns behind a Gram matrix are from orthogonal in their own measure, without regard to their norms.
[[nodiscard]] inline double correlation_norm(const matrix<double>& gram) {
    double sum = 0.0;
    for (index j = 0; j < gram.cols(); ++j) {
        for (index i = j + 1; i < gram.rows(); ++i) {
            sum += gram(i, j) / gram(i, i) * (gram(i, j) / gram(j, j));
        }
    }
    return std::sqrt(2.0 * sum);  // NaN, which is below nothing, where a column vanishes
}

/// Brings each column to a magnitude of about one, exactly: its squares neither overflow nor underflow.
template <real S>
void scale_columns(matrix<S>& y) {
    for (index j = 0; j < y.cols() && y.rows() > 0; ++j) {
        y.col(j) *= power_of_two_scale(y.col(j).cwiseAbs().maxCoeff());
    }
}

/// The work of `orthonormalize`, for extern templates.
template <real S>
orthonormalization orthonormalize_columns(matrix<S>& y) {
    if (y.size() == 0) {
        return orthonormalization::cholesky;
    }
    scale_columns(y);
    if (y.rows() >= y.cols()) {
        matrix<double> gram;
        gram_lower(y, gram);
        // What is nearly orthogonal already needs one pass, which leaves eps (1 + defect).
        const bool once = correlation_norm(gram) < 0.1;
        if (cholesky_pass(y, gram)) {
            if (once) {
                return orthonormalization::cholesky;
            }
            gram_lower(y, gram);
            if (correlation_norm(gram) < 0.25 && cholesky_pass(y, gram)) {
                return orthonormalization::cholesky;
            }
        }
    }
    householder_qr<S>(y, nullptr, true);
    return orthonormalization::householder;
}

/// The work of `thin_qr`, for extern templates.
template <real S>
thin_qr_result<S> thin_qr_of(matrix<S> a, bool want_q) {
    thin_qr_result<S> out;
    if (a.size() == 0) {
        const index p = std::min(a.rows(), a.cols());
        out.q = matrix<S>::Identity(a.rows(), p);
        out.r = matrix<S>::Zero(p, a.cols());
        return out;
    }
    const S scale = power_of_two_scale(a.cwiseAbs().maxCoeff());
    a *= scale;
    householder_qr<S>(a, &out.r, want_q);
    out.r /= scale;
    if (want_q) {
        out.q = std::move(a);
    }
    return out;
}

}  // namespace detail

/// Replaces the columns of Y (m x k) by an orthonormal basis of their range; for m < k, Y becomes m x m.
///
/// Columns that depend on the ones before them are replaced by arbitrary orthonormal directions, so the result always
/// has min(m, k) orthonormal columns.
/// \pre    Y is finite.
/// \return Which of the two ways was taken.
/// \cost   4 m k^2 flops of matrix products, or 4 m k^2 of reflections in the fallback.
/// \note   Bit-equal for one binary and CPU.
template <real S>
orthonormalization orthonormalize(matrix<S>& y) {
    return detail::orthonormalize_columns<S>(y);
}

/// A = Q R by Householder reflections: Q is m x p with orthonormal columns, R p x n upper triangular, p = min(m, n).
///
/// \pre  A is finite.
/// \cost 4 m n^2 flops for m >= n.
template <real S>
[[nodiscard]] thin_qr_result<S> thin_qr(matrix<S> a) {
    return detail::thin_qr_of<S>(std::move(a), true);
}

/// The triangle R of A = Q R alone, at half the cost.
template <real S>
[[nodiscard]] matrix<S> triangular_factor(matrix<S> a) {
    return detail::thin_qr_of<S>(std::move(a), false).r;
}

#ifdef LOWRANK_EXTERN_TEMPLATES
extern template void detail::householder_qr<float>(matrix<float>&, matrix<float>*, bool, index);
extern template void detail::householder_qr<double>(matrix<double>&, matrix<double>*, bool, index);
extern template orthonormalization detail::orthonormalize_columns<float>(matrix<float>&);
extern template orthonormalization detail::orthonormalize_columns<double>(matrix<double>&);
extern template thin_qr_result<float> detail::thin_qr_of<float>(matrix<float>, bool);
extern template thin_qr_result<double> detail::thin_qr_of<double>(matrix<double>, bool);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_ORTHONORMALIZE_HPP

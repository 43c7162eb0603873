// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_ORTHONORMALIZE_HPP
#define LOWRANK_FACTOR_ORTHONORMALIZE_HPP

/// \file
/// Orthonormal columns with the same range: Cholesky-QR2 with a checked fallback to Householder reflections.
///
///     lowrank::orthonormalize(y);                          // m x k, k small: Y^T Y = I, range(Y) kept
///     auto [q, r] = lowrank::thin_qr(x);                   // X = Q R, when R is wanted as well
///
/// Two Gram matrices and two triangular solves are matrix products, several times faster than reflections for tall
/// panels. The Gram matrix is formed in double, so float panels up to condition 1e6 take the fast path.
/// Fukaya, Nakatsukasa, Yanagisawa, Yamamoto: CholeskyQR2. ScalA 2014. Yamazaki, Tomov, Dongarra: Mixed-precision
/// Cholesky QR factorization. SIAM J. Sci. Comput. 37 (2015).

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
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

/// x / (a b) for powers of two, where neither a b nor x / a need be in the range.
[[nodiscard]] inline double without_scales(double x, double a, double b) {
    return std::ldexp(x, -std::ilogb(a) - std::ilogb(b));
}

/// Householder QR: A becomes Q if asked for, `r` the triangle if not null. Q has `q_cols` orthonormal columns if that
/// is more than min(m, n). \pre A is of magnitude about one.
template <real S>
void householder_qr(matrix<S>& a, matrix<S>* r, bool want_q, index q_cols = 0);

/// One Cholesky-QR pass: Y := Y R^-1 with Y^T Y = R^T R, given that Gram matrix, which is overwritten. False, and Y
/// unchanged, if the Gram matrix is not safely positive definite.
template <real S>
bool cholesky_pass(matrix<S>& y, matrix<double>& gram);

/// Brings each column to a magnitude of about one, exactly: its squares neither overflow nor underflow.
template <real S>
void scale_columns(matrix<S>& y);

template <real S>
orthonormalization orthonormalize_columns(matrix<S>& y);
template <real S>
thin_qr_result<S> thin_qr_of(matrix<S> a, bool want_q);

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

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/orthonormalize.ipp>
#endif

#endif  // LOWRANK_FACTOR_ORTHONORMALIZE_HPP

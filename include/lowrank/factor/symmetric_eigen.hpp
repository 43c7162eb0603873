// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SYMMETRIC_EIGEN_HPP
#define LOWRANK_FACTOR_SYMMETRIC_EIGEN_HPP

/// \file
/// Eigenvalues and eigenvectors of a symmetric matrix, largest first: G = V diag(lambda) V^T.
///
///     auto e = lowrank::symmetric_eigen(lowrank::gram(x));    // float or double in, computed in double
///     if (!e) return log(e.why.message);
///
/// Reduction to tridiagonal form, divide and conquer, and back-transformation by blocks of reflections. Everything that needs
/// an eigensolver (SVD, weightings, low-rank cores) comes here with a plain `matrix<double>`.

#include <concepts>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Eigenvalues in descending order, and the orthonormal eigenvectors in the columns of `vectors`. Both are empty on
/// failure; `vectors` also when only the values were asked for.
struct symmetric_eigen_result {
    vector<double> values = {};
    matrix<double> vectors = {};
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

namespace detail {

/// The decomposition of a finite matrix of which the lower triangle is read; values alone if asked for.
template <std::same_as<double> S>
[[nodiscard]] symmetric_eigen_result symmetric_eigen_of(const matrix<S>& a, bool want_vectors);

}  // namespace detail

/// G = V diag(lambda) V^T for a symmetric G, of which only the lower triangle is read.
///
/// \pre    G is square.
/// \return `non_finite` if the lower triangle holds NaN or infinity; `no_convergence` if the iteration does not end.
///         Values are within a few eps of the largest magnitude, vectors orthonormal to about eps sqrt(n).
/// \cost   At most 5 n^3 flops, 4/3 n^3 for values only; four n x n matrices of double, two for values only.
/// \note   Bit-equal for one binary and CPU.
template <real S>
[[nodiscard]] symmetric_eigen_result symmetric_eigen(const matrix<S>& g, bool want_vectors = true) {
    detail::expects_shape("symmetric_eigen", "g", g.rows(), g.cols(), g.rows(), g.rows());
    matrix<double> a;
    a.setZero(g.rows(), g.rows());
    for (index j = 0; j < a.cols(); ++j) {
        for (index i = j; i < a.rows(); ++i) {
            a(i, j) = static_cast<double>(g(i, j));
        }
    }
    if (!all_finite(a)) {
        return {.why = {errc::non_finite, "symmetric_eigen: the matrix holds NaN or infinity"}};
    }
    return detail::symmetric_eigen_of<double>(a, want_vectors);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/symmetric_eigen.ipp>
#endif

#endif  // LOWRANK_FACTOR_SYMMETRIC_EIGEN_HPP

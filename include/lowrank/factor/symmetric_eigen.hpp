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

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Eigenvalues in descending order, and the orthonormal eigenvectors in the columns of `vectors`. Both are empty on
/// failure; `vectors` also when only the values were asked for.
struct symmetric_eigen_result : fallible {
    vector<double> values = {};
    matrix<double> vectors = {};
};

namespace detail {

/// The decomposition of a finite matrix of which the lower triangle is read; values alone if asked for. `function` is
/// named in messages.
LOWRANK_API [[nodiscard]] symmetric_eigen_result symmetric_eigen_of(const char* function, const matrix<double>& a,
                                                                    bool want_vectors);
/// The same of any matrix, once it is looked at.
LOWRANK_API [[nodiscard]] symmetric_eigen_result checked_symmetric_eigen(const matrix<double>& g, bool want_vectors);

}  // namespace detail

/// G = V diag(lambda) V^T for a symmetric G, of which only the lower triangle is read.
///
/// \pre    G is square.
/// \return `non_finite` if the lower triangle holds NaN or infinity; `no_convergence` if the iteration does not end.
///         Values are within a few eps of the largest magnitude, vectors orthonormal to about eps sqrt(n).
/// \cost   At most 5 n^3 flops, 4/3 n^3 for values only; four n x n matrices of double, two for values only.
/// \note   Bit-equal for one binary and CPU.
template <detail::dense_expression G>
[[nodiscard]] symmetric_eigen_result symmetric_eigen(const G& g, bool want_vectors = true) {
    return detail::checked_symmetric_eigen(copy_in<double>(detail::evaluated(g)), want_vectors);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/symmetric_eigen.ipp>
#endif

#endif  // LOWRANK_FACTOR_SYMMETRIC_EIGEN_HPP

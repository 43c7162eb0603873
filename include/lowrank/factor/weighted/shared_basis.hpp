// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_HPP
#define LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_HPP

/// \file
/// Several weights that read the same inputs, W_g ~ C_g B with one basis B (k x n) for all: q, k and v of a layer, the
/// experts of a mixture, one projection of neighbouring layers.
///
///     const std::vector<lowrank::matrix<float>> weights = {base, tuned};
///     auto f = lowrank::shared_basis<float>(weights, 128);
///     log(f.relative, f.separate_relative);          // at equal parameters: shared, each for itself
///
/// B x is computed once for all of them. Wang et al., Basis Sharing, ICLR 2025 (arXiv 2410.03765).

#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/weighted/weighting.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W_g ~ coefficients[g] * basis, and the comparison with separate factors of the same total size.
template <real S>
struct shared_basis_result : fallible {
    std::vector<matrix<S>> coefficients = {};  ///< m_g x k each.
    matrix<S> basis = {};                      ///< k x n.
    double error = 0.0;                        ///< sqrt(sum_g || (W_g - C_g B) R ||_F^2), exact.
    double relative = 0.0;                     ///< The same over sqrt(sum_g || W_g R ||_F^2).
    index parameters = 0;                      ///< k (n + sum m_g).
    double separate_relative = 0.0;            ///< Of separate truncations with `allocate_ranks` of the same size.
};

/// The best shared basis of rank k, in the weighting R R^T = right of the common inputs.
///
/// \pre    At least one weight, all with n columns; 0 <= k <= min(sum m_g, n); the weighting fits n. Where a singular
///         weighting sees fewer components, the basis has as many as it sees.
/// \return `non_finite` if a weight holds NaN or infinity.
/// \cost   One weighted SVD of the stacked weights, and one of each for the comparison.
template <real S>
[[nodiscard]] shared_basis_result<S> shared_basis(std::span<const matrix<S>> weights, index k,
                                                  const weighting& right = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/weighted/shared_basis.ipp>
#endif

#endif  // LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_SHRINK_HPP
#define LOWRANK_FACTOR_RANKS_SHRINK_HPP

/// \file
/// New singular values from old ones: hard and soft thresholds, and the shrinker that is optimal for white noise.
///
///     auto f = lowrank::svd(w).value();
///     auto s = lowrank::shrink_optimal(f.s, f.rows(), f.cols());
///     auto denoised = lowrank::with_values(f, s);      // two factors, zeros left out
///
/// Noise does not only add small singular values, it inflates the large ones; a truncation keeps the inflation.
/// Gavish, Donoho, IEEE Trans. Inf. Theory 63 (2017), Optimal shrinkage of singular values (Frobenius loss).

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// s_i where s_i > threshold, else 0. \pre threshold >= 0; s as for every rank rule.
LOWRANK_API [[nodiscard]] vector<double> shrink_hard(const singular_values_in& s, double threshold);

/// max(s_i - threshold, 0): the solution of min 1/2 ||W - X||_F^2 + threshold ||X||_*. \pre threshold >= 0
LOWRANK_API [[nodiscard]] vector<double> shrink_soft(const singular_values_in& s, double threshold);

/// The values of least asymptotic Frobenius error for noise of level sigma: with y = s / (sigma sqrt(b)),
/// sigma sqrt(b) sqrt((y^2 - beta - 1)^2 - 4 beta) / y above the Marchenko-Pastur edge, else 0.
/// \pre sigma >= 0; m and n are the shape of the weight. sigma = 0 changes nothing.
LOWRANK_API [[nodiscard]] vector<double> shrink_optimal(const singular_values_in& s, index m, index n, double sigma);

/// The same with the noise level read from the median of s. \pre As `noise_level_from_median`, or s is empty.
LOWRANK_API [[nodiscard]] vector<double> shrink_optimal(const singular_values_in& s, index m, index n);

/// sum_i values_i u_i v_i^T over the values that are not zero, with the vectors of `f`.
/// \pre values.size() == f.size().
template <real S>
[[nodiscard]] low_rank<S> with_values(const decomposition<S>& f, const singular_values_in& values);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/ranks/shrink.ipp>
#endif

#endif  // LOWRANK_FACTOR_RANKS_SHRINK_HPP

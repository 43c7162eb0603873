// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_HPP
#define LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_HPP

/// \file
/// Which singular values noise cannot explain: the Marchenko-Pastur edge and the Gavish-Donoho threshold.
///
///     lowrank::index k = lowrank::marchenko_pastur_rank(spec.s, spec.rows(), spec.cols());
///     double t = lowrank::gavish_donoho_threshold(spec.s, spec.rows(), spec.cols());
///
/// Model: W = low rank + noise with independent entries of standard deviation sigma. With a = min(m, n), b = max(m, n),
/// beta = a / b, the noise alone has singular values up to sigma (sqrt(a) + sqrt(b)), and their median is
/// sigma sqrt(b mu_beta), with mu_beta the median of the Marchenko-Pastur law. Interquartile ranges of the singular
/// values themselves, used by some tools for sigma, are not the same thing and keep up to all of pure noise.
///
/// Marchenko, Pastur 1967. Gavish, Donoho, IEEE Trans. Inf. Theory 60 (2014).

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The median mu_beta of the Marchenko-Pastur law with ratio beta and unit variance, to about 1e-10.
/// \pre 0 < beta <= 1
LOWRANK_API [[nodiscard]] double marchenko_pastur_median(double beta);

/// sigma (sqrt(m) + sqrt(n)): the largest singular value of m x n noise, in the limit. \pre sigma >= 0
LOWRANK_API [[nodiscard]] double marchenko_pastur_edge(double sigma, index m, index n);

/// The noise level sigma = median(s) / sqrt(b mu_beta), robust to fewer than half of the values being signal; at least the
/// level whose edge is the rounding of s, 4 eps s_1, so that rounding of a matrix of low rank is no signal.
/// \pre s holds all min(m, n) singular values of an m x n weight, and there is one.
LOWRANK_API [[nodiscard]] double noise_level_from_median(const singular_values_in& s, index m, index n);

/// #(s > marchenko_pastur_edge(sigma, m, n)): what noise of this level cannot explain.
LOWRANK_API [[nodiscard]] index marchenko_pastur_rank(const singular_values_in& s, index m, index n, double sigma);

/// The same with the level read from the median of s. 0 for an empty spectrum.
LOWRANK_API [[nodiscard]] index marchenko_pastur_rank(const singular_values_in& s, index m, index n);

/// lambda*(beta) = sqrt(2 (beta + 1) + 8 beta / (beta + 1 + sqrt(beta^2 + 14 beta + 1))), in units of sigma sqrt(b).
/// \pre 0 < beta <= 1
LOWRANK_API [[nodiscard]] double gavish_donoho_lambda(double beta);

/// omega(beta) = lambda*(beta) / sqrt(mu_beta): the threshold in units of the median singular value.
/// \pre 0 < beta <= 1
LOWRANK_API [[nodiscard]] double gavish_donoho_omega(double beta);

/// The hard threshold of least asymptotic mean squared error for a known noise level: lambda*(beta) sqrt(b) sigma.
/// \pre sigma >= 0, m and n positive
LOWRANK_API [[nodiscard]] double gavish_donoho_threshold(double sigma, index m, index n);

/// The same with the noise level read from the median of s: omega(beta) median(s).
/// \pre As for `noise_level_from_median`.
LOWRANK_API [[nodiscard]] double gavish_donoho_threshold(const singular_values_in& s, index m, index n);

/// #(s > gavish_donoho_threshold(sigma, m, n)).
LOWRANK_API [[nodiscard]] index gavish_donoho_rank(const singular_values_in& s, index m, index n, double sigma);

/// The same with the level read from the median of s. 0 for an empty spectrum.
LOWRANK_API [[nodiscard]] index gavish_donoho_rank(const singular_values_in& s, index m, index n);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/ranks/noise_threshold.ipp>
#endif

#endif  // LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_HPP

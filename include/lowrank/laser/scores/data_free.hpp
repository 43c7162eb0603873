// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SCORES_DATA_FREE_HPP
#define LOWRANK_LASER_SCORES_DATA_FREE_HPP

/// \file
/// Which matrices look noisy, from their singular values alone: the scores of two tools, and correct ones.
///
///     auto s = spec.s;
///     double snr = lowrank::data_free_score(s, m, n, lowrank::data_free_policy::spectrum);    // as Spectrum ranks
///     double share = lowrank::data_free_score(s, m, n, lowrank::data_free_policy::noise);     // 0: all signal
///
/// laserRMT and Spectrum (github: cognitivecomputations/laserRMT, QuixiAI/spectrum; Hartford, Atkins, Fernandes Neto,
/// Golchinfar, arXiv 2406.06623) take the interquartile range of the SINGULAR VALUES for the noise level and a
/// threshold of level * (1 + sqrt(min/max)). That is not the Marchenko-Pastur edge: of pure noise it keeps a quarter of
/// the values of a square matrix and all of a 4 : 1 one. Their numbers are here to compare with theirs; to decide, use
/// `noise`.

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The q-quantile of descending values, linear between neighbours (as numpy and torch). \pre s not empty, 0 <= q <= 1
template <real S>
[[nodiscard]] double quantile_of_descending(const vector<S>& s, double q);

/// laserRMT's and Spectrum's threshold: (q75 - q25) / 1.349 * (1 + sqrt(min(m, n) / max(m, n))).
/// \pre s holds the singular values of an m x n weight, at least one
template <real S>
[[nodiscard]] double laser_rmt_threshold(const vector<S>& s, index m, index n);

/// #(s > laser_rmt_threshold): the rank laserRMT truncates to. \pre as for the threshold
template <real S>
[[nodiscard]] index laser_rmt_rank(const vector<S>& s, index m, index n);

/// sum of the values above a threshold over the sum of the others; infinite if there are no others or they are zero.
template <real S>
[[nodiscard]] double signal_to_noise(const vector<S>& s, double threshold);

/// How a matrix is judged without data.
enum class data_free_policy {
    laser_rmt,       ///< laserRMT: signal to noise at its threshold. It truncates the matrices with the lowest.
    spectrum,        ///< Spectrum: the same over s_1. It trains the matrices with the highest of each kind.
    noise,           ///< sum s_i^2 below the Marchenko-Pastur edge over sum s^2, level from the median: 1 is all noise.
    effective_rank,  ///< exp(entropy of s) over min(m, n), in (0, 1]: 1 is a flat spectrum.
    spectral_share   ///< s_1 over ||W||_F, in (0, 1]: 1 is rank one.
};

/// The score of one matrix under a policy. \pre s holds all singular values of an m x n weight, at least one
template <real S>
[[nodiscard]] double data_free_score(const vector<S>& s, index m, index n, data_free_policy policy);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/scores/data_free.ipp>
#endif

#endif  // LOWRANK_LASER_SCORES_DATA_FREE_HPP

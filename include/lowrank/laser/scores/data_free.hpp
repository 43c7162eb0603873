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

#include <algorithm>
#include <cmath>
#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The q-quantile of descending values, linear between neighbours (as numpy and torch). \pre s not empty, 0 <= q <= 1
template <real S>
[[nodiscard]] double quantile_of_descending(const vector<S>& s, double q) {
    detail::expects_spectrum("quantile_of_descending", s);
    detail::expects(s.size() > 0 && q >= 0 && q <= 1, "quantile_of_descending: needs values and q in [0, 1]");
    const double place = (1 - q) * static_cast<double>(s.size() - 1);
    const auto low = static_cast<index>(place);
    const index high = std::min(low + 1, s.size() - 1);
    const double part = place - static_cast<double>(low);
    return static_cast<double>(s(low)) * (1 - part) + static_cast<double>(s(high)) * part;
}

/// laserRMT's and Spectrum's threshold: (q75 - q25) / 1.349 * (1 + sqrt(min(m, n) / max(m, n))).
/// \pre s holds the singular values of an m x n weight, at least one
template <real S>
[[nodiscard]] double laser_rmt_threshold(const vector<S>& s, index m, index n) {
    detail::expects(m > 0 && n > 0, "laser_rmt_threshold: m and n must be positive");
    const double level = (quantile_of_descending(s, 0.75) - quantile_of_descending(s, 0.25)) / 1.349;
    return level * (1 + std::sqrt(static_cast<double>(std::min(m, n)) / static_cast<double>(std::max(m, n))));
}

/// #(s > laser_rmt_threshold): the rank laserRMT truncates to. \pre as for the threshold
template <real S>
[[nodiscard]] index laser_rmt_rank(const vector<S>& s, index m, index n) {
    return rank_above_threshold(s, laser_rmt_threshold(s, m, n));
}

/// sum of the values above a threshold over the sum of the others; infinite if there are no others or they are zero.
template <real S>
[[nodiscard]] double signal_to_noise(const vector<S>& s, double threshold) {
    const index k = rank_above_threshold(s, threshold);
    const double signal = s.head(k).template cast<double>().sum();
    const double noise = s.tail(s.size() - k).template cast<double>().sum();
    return noise > 0 ? signal / noise : std::numeric_limits<double>::infinity();
}

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
[[nodiscard]] double data_free_score(const vector<S>& s, index m, index n, data_free_policy policy) {
    detail::expects_spectrum("data_free_score", s);
    detail::expects(s.size() > 0 && s.size() == std::min(m, n),
                    "data_free_score: all min(m, n) singular values are needed, and at least one");
    const double largest = static_cast<double>(s(0));
    if (!(largest > 0)) {
        return 0.0;
    }
    switch (policy) {
        case data_free_policy::laser_rmt: return signal_to_noise(s, laser_rmt_threshold(s, m, n));
        case data_free_policy::spectrum: return signal_to_noise(s, laser_rmt_threshold(s, m, n)) / largest;
        case data_free_policy::noise: {
            const vector<double> part = s.template cast<double>() / largest;
            return part.tail(s.size() - marchenko_pastur_rank(s, m, n)).squaredNorm() / part.squaredNorm();
        }
        case data_free_policy::effective_rank: return effective_rank(s) / static_cast<double>(s.size());
        case data_free_policy::spectral_share: return 1 / std::sqrt(stable_rank(s));
    }
    return 0.0;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SCORES_DATA_FREE_HPP

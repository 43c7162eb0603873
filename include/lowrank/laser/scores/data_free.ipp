// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SCORES_DATA_FREE_IPP
#define LOWRANK_LASER_SCORES_DATA_FREE_IPP

#include <lowrank/laser/scores/data_free.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
double quantile_of_descending(const vector<S>& s, double q) {
    detail::expects_spectrum("quantile_of_descending", s);
    detail::expects(s.size() > 0 && q >= 0 && q <= 1, "quantile_of_descending: needs values and q in [0, 1]");
    const double place = (1 - q) * static_cast<double>(s.size() - 1);
    const auto low = static_cast<index>(place);
    const index high = std::min(low + 1, s.size() - 1);
    const double part = place - static_cast<double>(low);
    return static_cast<double>(s(low)) * (1 - part) + static_cast<double>(s(high)) * part;
}

template <real S>
double laser_rmt_threshold(const vector<S>& s, index m, index n) {
    detail::expects(m > 0 && n > 0, "laser_rmt_threshold: m and n must be positive");
    const double level = (quantile_of_descending(s, 0.75) - quantile_of_descending(s, 0.25)) / 1.349;
    return level * (1 + std::sqrt(static_cast<double>(std::min(m, n)) / static_cast<double>(std::max(m, n))));
}

template <real S>
index laser_rmt_rank(const vector<S>& s, index m, index n) {
    return rank_above_threshold(s, laser_rmt_threshold(s, m, n));
}

template <real S>
double signal_to_noise(const vector<S>& s, double threshold) {
    const index k = rank_above_threshold(s, threshold);
    double signal = 0, noise = 0;
    for (index i = 0; i < s.size(); ++i) {
        (i < k ? signal : noise) += static_cast<double>(s(i));
    }
    return noise > 0 ? signal / noise : std::numeric_limits<double>::infinity();
}

template <real S>
double data_free_score(const vector<S>& s, index m, index n, data_free_policy policy) {
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
            const index signal = marchenko_pastur_rank(s, m, n);
            double below = 0, all = 0;
            for (index i = s.size(); i-- > 0;) {
                const double x = static_cast<double>(s(i)) / largest;
                all += x * x;
                below = i >= signal ? all : below;
            }
            return below / all;
        }
        case data_free_policy::effective_rank: return effective_rank(s) / static_cast<double>(s.size());
        case data_free_policy::spectral_share: return 1 / std::sqrt(stable_rank(s));
    }
    return 0.0;
}

#ifdef LOWRANK_COMPILED
template double quantile_of_descending(const vector<float>&, double);
template double laser_rmt_threshold(const vector<float>&, index, index);
template index laser_rmt_rank(const vector<float>&, index, index);
template double signal_to_noise(const vector<float>&, double);
template double data_free_score(const vector<float>&, index, index, data_free_policy);
template double quantile_of_descending(const vector<double>&, double);
template double laser_rmt_threshold(const vector<double>&, index, index);
template index laser_rmt_rank(const vector<double>&, index, index);
template double signal_to_noise(const vector<double>&, double);
template double data_free_score(const vector<double>&, index, index, data_free_policy);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SCORES_DATA_FREE_IPP

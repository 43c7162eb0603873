// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_IPP
#define LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_IPP

#include <lowrank/factor/ranks/noise_threshold.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY double marchenko_pastur_median(double beta) {
    detail::expects(beta > 0.0 && beta <= 1.0, "marchenko_pastur_median: beta must be in (0, 1]");
    // With x = 1 + beta + 2 sqrt(beta) cos(theta) the density becomes 2 sin^2(theta) / (pi x) on [0, pi], theta = 0
    // being the upper edge. It is smooth on the half that is integrated here, down to the median.
    const auto x = [&](double theta) { return 1.0 + beta + 2.0 * std::sqrt(beta) * std::cos(theta); };
    const auto upper = [&](double theta) {
        constexpr int steps = 200;  // Simpson
        const double h = theta / steps;
        double sum = 0.0;
        for (int i = 0; i <= steps; ++i) {
            const double t = h * i;
            const double f = 2.0 * std::sin(t) * std::sin(t) / (std::numbers::pi * x(t));
            sum += f * (i == 0 || i == steps ? 1.0 : i % 2 == 1 ? 4.0 : 2.0);
        }
        return sum * h / 3.0;
    };
    double low = 0.0;
    double high = 0.9 * std::numbers::pi;  // the upper 90 % of angles hold more than half for every beta
    for (int i = 0; i < 60; ++i) {
        const double middle = 0.5 * (low + high);
        (upper(middle) < 0.5 ? low : high) = middle;
    }
    return x(0.5 * (low + high));
}

LOWRANK_BODY double marchenko_pastur_edge(double sigma, index m, index n) {
    detail::expects(sigma >= 0.0, "marchenko_pastur_edge: sigma must not be negative");
    return sigma * (std::sqrt(static_cast<double>(m)) + std::sqrt(static_cast<double>(n)));
}

LOWRANK_BODY double noise_level_from_median(const singular_values_in& s, index m, index n) {
    detail::expects_spectrum("noise_level_from_median", s);
    detail::expects(s.size() > 0 && s.size() == std::min(m, n),
                    "noise_level_from_median: all min(m, n) singular values are needed, and at least one");
    const index upper = s.size() / 2;
    const index lower = (s.size() - 1) / 2;
    const double median = 0.5 * s(lower) + 0.5 * s(upper);
    const double b = static_cast<double>(std::max(m, n));
    return std::max(median / std::sqrt(b * marchenko_pastur_median(static_cast<double>(std::min(m, n)) / b)),
                    4.0 * s.epsilon() * s(0) / marchenko_pastur_edge(1.0, m, n));
}

LOWRANK_BODY index marchenko_pastur_rank(const singular_values_in& s, index m, index n, double sigma) {
    return rank_above_threshold(s, marchenko_pastur_edge(sigma, m, n));
}

LOWRANK_BODY index marchenko_pastur_rank(const singular_values_in& s, index m, index n) {
    return s.size() == 0 ? 0 : marchenko_pastur_rank(s, m, n, noise_level_from_median(s, m, n));
}

LOWRANK_BODY double gavish_donoho_lambda(double beta) {
    detail::expects(beta > 0.0 && beta <= 1.0, "gavish_donoho_lambda: beta must be in (0, 1]");
    return std::sqrt(2.0 * (beta + 1.0) + 8.0 * beta / (beta + 1.0 + std::sqrt(beta * beta + 14.0 * beta + 1.0)));
}

LOWRANK_BODY double gavish_donoho_omega(double beta) {
    return gavish_donoho_lambda(beta) / std::sqrt(marchenko_pastur_median(beta));
}

LOWRANK_BODY double gavish_donoho_threshold(double sigma, index m, index n) {
    detail::expects(sigma >= 0.0 && m > 0 && n > 0,
                    "gavish_donoho_threshold: sigma must not be negative, m and n must be positive");
    const double b = static_cast<double>(std::max(m, n));
    return gavish_donoho_lambda(static_cast<double>(std::min(m, n)) / b) * std::sqrt(b) * sigma;
}

LOWRANK_BODY double gavish_donoho_threshold(const singular_values_in& s, index m, index n) {
    return gavish_donoho_threshold(noise_level_from_median(s, m, n), m, n);
}

LOWRANK_BODY index gavish_donoho_rank(const singular_values_in& s, index m, index n, double sigma) {
    return s.size() == 0 ? 0 : rank_above_threshold(s, gavish_donoho_threshold(sigma, m, n));
}

LOWRANK_BODY index gavish_donoho_rank(const singular_values_in& s, index m, index n) {
    return s.size() == 0 ? 0 : rank_above_threshold(s, gavish_donoho_threshold(s, m, n));
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_IPP

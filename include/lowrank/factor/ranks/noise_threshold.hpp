// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_HPP
#define LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_HPP

/// \file
/// Which singular values noise cannot explain: the Marchenko-Pastur edge and the Gavish-Donoho threshold.
///
///     index k = lowrank::marchenko_pastur_rank(spec.values(), spec.rows(), spec.cols());
///     double t = lowrank::gavish_donoho_threshold(spec.values(), spec.rows(), spec.cols());
///
/// Model: W = low rank + noise with independent entries of standard deviation sigma. With a = min(m, n), b = max(m, n),
/// beta = a / b, the noise alone has singular values up to sigma (sqrt(a) + sqrt(b)), and their median is
/// sigma sqrt(b mu_beta), with mu_beta the median of the Marchenko-Pastur law. Interquartile ranges of the singular
/// values themselves, used by some tools for sigma, are not the same thing and keep up to all of pure noise.
///
/// Marchenko, Pastur 1967. Gavish, Donoho, IEEE Trans. Inf. Theory 60 (2014).

#include <algorithm>
#include <cmath>
#include <numbers>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The median mu_beta of the Marchenko-Pastur law with ratio beta and unit variance, to about 1e-10.
/// \pre 0 < beta <= 1
[[nodiscard]] inline double marchenko_pastur_median(double beta) {
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

/// sigma (sqrt(m) + sqrt(n)): the largest singular value of m x n noise, in the limit. \pre sigma >= 0
[[nodiscard]] inline double marchenko_pastur_edge(double sigma, index m, index n) {
    detail::expects(sigma >= 0.0, "marchenko_pastur_edge: sigma must not be negative");
    return sigma * (std::sqrt(static_cast<double>(m)) + std::sqrt(static_cast<double>(n)));
}

/// The noise level sigma = median(s) / sqrt(b mu_beta), robust to fewer than half of the values being signal.
/// \pre s holds all min(m, n) singular values of an m x n weight, and there is one.
template <real S>
[[nodiscard]] double noise_level_from_median(const vector<S>& s, index m, index n) {
    detail::expects_spectrum("noise_level_from_median", s);
    detail::expects(s.size() > 0 && s.size() == std::min(m, n),
                    "noise_level_from_median: all min(m, n) singular values are needed, and at least one");
    const index upper = s.size() / 2;
    const index lower = (s.size() - 1) / 2;
    const double median = 0.5 * static_cast<double>(s(lower)) + 0.5 * static_cast<double>(s(upper));
    const double b = static_cast<double>(std::max(m, n));
    return median / std::sqrt(b * marchenko_pastur_median(static_cast<double>(std::min(m, n)) / b));
}

/// #(s > marchenko_pastur_edge(sigma, m, n)): what noise of this level cannot explain.
template <real S>
[[nodiscard]] index marchenko_pastur_rank(const vector<S>& s, index m, index n, double sigma) {
    return rank_above_threshold(s, marchenko_pastur_edge(sigma, m, n));
}

/// The same with the level read from the median of s. 0 for an empty spectrum.
template <real S>
[[nodiscard]] index marchenko_pastur_rank(const vector<S>& s, index m, index n) {
    return s.size() == 0 ? 0 : marchenko_pastur_rank(s, m, n, noise_level_from_median(s, m, n));
}

/// lambda*(beta) = sqrt(2 (beta + 1) + 8 beta / (beta + 1 + sqrt(beta^2 + 14 beta + 1))), in units of sigma sqrt(b).
/// \pre 0 < beta <= 1
[[nodiscard]] inline double gavish_donoho_lambda(double beta) {
    detail::expects(beta > 0.0 && beta <= 1.0, "gavish_donoho_lambda: beta must be in (0, 1]");
    return std::sqrt(2.0 * (beta + 1.0) + 8.0 * beta / (beta + 1.0 + std::sqrt(beta * beta + 14.0 * beta + 1.0)));
}

/// omega(beta) = lambda*(beta) / sqrt(mu_beta): the threshold in units of the median singular value.
/// \pre 0 < beta <= 1
[[nodiscard]] inline double gavish_donoho_omega(double beta) {
    return gavish_donoho_lambda(beta) / std::sqrt(marchenko_pastur_median(beta));
}

/// The hard threshold of least asymptotic mean squared error for a known noise level: lambda*(beta) sqrt(b) sigma.
/// \pre sigma >= 0, m and n positive
[[nodiscard]] inline double gavish_donoho_threshold(double sigma, index m, index n) {
    detail::expects(sigma >= 0.0 && m > 0 && n > 0,
                    "gavish_donoho_threshold: sigma must not be negative, m and n must be positive");
    const double b = static_cast<double>(std::max(m, n));
    return gavish_donoho_lambda(static_cast<double>(std::min(m, n)) / b) * std::sqrt(b) * sigma;
}

/// The same with the noise level read from the median of s: omega(beta) median(s).
/// \pre As for `noise_level_from_median`.
template <real S>
[[nodiscard]] double gavish_donoho_threshold(const vector<S>& s, index m, index n) {
    return gavish_donoho_threshold(noise_level_from_median(s, m, n), m, n);
}

/// #(s > gavish_donoho_threshold(sigma, m, n)).
template <real S>
[[nodiscard]] index gavish_donoho_rank(const vector<S>& s, index m, index n, double sigma) {
    return s.size() == 0 ? 0 : rank_above_threshold(s, gavish_donoho_threshold(sigma, m, n));
}

/// The same with the level read from the median of s. 0 for an empty spectrum.
template <real S>
[[nodiscard]] index gavish_donoho_rank(const vector<S>& s, index m, index n) {
    return s.size() == 0 ? 0 : rank_above_threshold(s, gavish_donoho_threshold(s, m, n));
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_NOISE_THRESHOLD_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_SHRINK_HPP
#define LOWRANK_FACTOR_RANKS_SHRINK_HPP

/// \file
/// New singular values from old ones: hard and soft thresholds, and the shrinker that is optimal for white noise.
///
///     auto spec = lowrank::make_spectrum(w);
///     auto s = lowrank::shrink_optimal(spec->values(), spec->rows(), spec->cols());
///     auto denoised = lowrank::with_values(*spec, s);  // two factors, zeros left out
///
/// Noise does not only add small singular values, it inflates the large ones; a truncation keeps the inflation.
/// Gavish, Donoho, IEEE Trans. Inf. Theory 63 (2017), Optimal shrinkage of singular values (Frobenius loss).

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/spectrum.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// s_i where s_i > threshold, else 0. \pre threshold >= 0; s as for every rank rule.
template <real S>
[[nodiscard]] vector<S> shrink_hard(const vector<S>& s, double threshold) {
    vector<S> out = s;
    out.tail(s.size() - rank_above_threshold(s, threshold)).setZero();
    return out;
}

/// max(s_i - threshold, 0): the solution of min 1/2 ||W - X||_F^2 + threshold ||X||_*. \pre threshold >= 0
template <real S>
[[nodiscard]] vector<S> shrink_soft(const vector<S>& s, double threshold) {
    const index k = rank_above_threshold(s, threshold);
    vector<S> out = vector<S>::Zero(s.size());
    out.head(k) = (s.head(k).template cast<double>().array() - threshold).template cast<S>();
    return out;
}

/// The values of least asymptotic Frobenius error for noise of level sigma: with y = s / (sigma sqrt(b)),
/// sigma sqrt(b) sqrt((y^2 - beta - 1)^2 - 4 beta) / y above the Marchenko-Pastur edge, else 0.
/// \pre sigma >= 0; m and n are the shape of the weight. sigma = 0 changes nothing.
template <real S>
[[nodiscard]] vector<S> shrink_optimal(const vector<S>& s, index m, index n, double sigma) {
    const index k = marchenko_pastur_rank(s, m, n, sigma);
    vector<S> out = vector<S>::Zero(s.size());
    const double b = static_cast<double>(std::max(m, n));
    const double beta = b > 0.0 ? static_cast<double>(std::min(m, n)) / b : 1.0;
    const double unit = sigma * std::sqrt(b);
    for (index i = 0; i < k; ++i) {
        const double x = static_cast<double>(s(i));
        if (!(unit > 0.0)) {
            out(i) = s(i);
            continue;
        }
        const double y = x / unit;
        // (y^2 - beta - 1)^2 - 4 beta, as a product of factors that do not cancel above the edge, over y^2.
        const double root = std::sqrt(beta);
        const double inside = (1.0 - std::pow((1.0 + root) / y, 2)) * (1.0 - std::pow((1.0 - root) / y, 2));
        out(i) = static_cast<S>(x * std::sqrt(std::max(inside, 0.0)));
    }
    return out;
}

/// The same with the noise level read from the median of s. \pre As `noise_level_from_median`, or s is empty.
template <real S>
[[nodiscard]] vector<S> shrink_optimal(const vector<S>& s, index m, index n) {
    return s.size() == 0 ? s : shrink_optimal(s, m, n, noise_level_from_median(s, m, n));
}

/// sum_i values_i u_i v_i^T over the values that are not zero, with the vectors of `spec`.
/// \pre values.size() == spec.size().
template <real S>
[[nodiscard]] low_rank<S> with_values(const spectrum<S>& spec, const vector<S>& values) {
    detail::expects(values.size() == spec.size(), "with_values: needs one value for each of the spectrum");
    const index k = static_cast<index>(std::count_if(values.begin(), values.end(), [](S x) { return x != S(0); }));
    low_rank<S> out{.left = matrix<S>(spec.rows(), k), .right = matrix<S>(k, spec.cols())};
    index at = 0;
    for (index i = 0; i < values.size(); ++i) {
        if (values(i) != S(0)) {
            out.left.col(at) = spec.u().col(i) * values(i);
            out.right.row(at) = spec.v().col(i).transpose();
            ++at;
        }
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_SHRINK_HPP

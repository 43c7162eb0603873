// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_NORMAL_QUANTILE_HPP
#define LOWRANK_CORE_NORMAL_QUANTILE_HPP

/// \file
/// Quantiles of the standard normal distribution: for confidence intervals, and for the levels of NormalFloat.
///
///     double z = lowrank::normal_quantile(0.975);   // 1.95996...

#include <cmath>
#include <numbers>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// z with P(Z <= z) = p for a standard normal Z, to about 1e-14. \pre 0 < p < 1
[[nodiscard]] inline double normal_quantile(double p) {
    detail::expects(p > 0 && p < 1, "normal_quantile: p must lie strictly between 0 and 1");
    if (p > 0.5) {
        return -normal_quantile(1 - p);
    }
    double low = -40, high = 0;  // P(Z <= -40) is below the smallest double
    for (int i = 0; i < 64; ++i) {
        const double mid = 0.5 * (low + high);
        (0.5 * std::erfc(-mid / std::numbers::sqrt2) < p ? low : high) = mid;
    }
    return 0.5 * (low + high);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_NORMAL_QUANTILE_HPP

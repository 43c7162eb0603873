// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_SCHEDULE_HPP
#define LOWRANK_LORA_TRAIN_SCHEDULE_HPP

/// \file
/// How the learning rate changes over a run: warmup, then constant, linear, cosine or polynomial decay.
///
///     const lowrank::learning_rate_schedule s{.kind = lowrank::decay::cosine, .steps = 1000, .warmup_steps = 50};
///     const double rate = peak * lowrank::learning_rate_share(s, step);
///
/// A pure function of the step, so that a resumed run continues as it would have.

#include <algorithm>
#include <cmath>
#include <numbers>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The shape of the way down.
enum class decay {
    constant,
    linear,
    cosine,
    polynomial,  ///< (1 - u)^power
};

/// The rate over a run, as shares of its peak.
struct learning_rate_schedule {
    decay kind = decay::constant;
    index steps = 1;         ///< Of the whole run.
    index warmup_steps = 0;  ///< Rising linearly to the peak.
    double final_share = 0;  ///< What is left at the last step, and after it.
    double power = 2;        ///< Of polynomial decay.
};

/// The share of the peak rate at a step, counted from 0:
///
///     (step + 1) / (warmup + 1) while step < warmup;  then f + (1 - f) d(u), u = (step - warmup) / (steps - 1 -
///     warmup)
///
/// with d(u) = 1 - u, (1 + cos(pi u)) / 2 or (1 - u)^power and u at most 1; 1 throughout for constant.
/// \pre step >= 0, steps >= 1, warmup_steps >= 0, 0 <= final_share <= 1, power > 0.
[[nodiscard]] inline double learning_rate_share(const learning_rate_schedule& s, index step) {
    detail::expects(step >= 0 && s.steps >= 1 && s.warmup_steps >= 0,
                    "learning_rate_share: step and warmup_steps must not be negative, steps at least 1");
    detail::expects(0 <= s.final_share && s.final_share <= 1 && s.power > 0,
                    "learning_rate_share: final_share must be in [0, 1], power positive");
    const auto at = static_cast<double>(step);
    const auto warmup = static_cast<double>(s.warmup_steps);
    if (at < warmup) {
        return (at + 1) / (warmup + 1);
    }
    const double u = std::min(1.0, (at - warmup) / std::max(1.0, static_cast<double>(s.steps - 1) - warmup));
    double left = 1;
    switch (s.kind) {
        case decay::constant: return 1;
        case decay::linear: left = 1 - u; break;
        case decay::cosine: left = (1 + std::cos(std::numbers::pi * u)) / 2; break;
        case decay::polynomial: left = std::pow(1 - u, s.power); break;
    }
    return s.final_share + (1 - s.final_share) * left;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_SCHEDULE_HPP

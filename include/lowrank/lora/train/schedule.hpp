// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_SCHEDULE_HPP
#define LOWRANK_LORA_TRAIN_SCHEDULE_HPP

/// \file
/// Learning-rate schedules: warmup, then constant, linear, cosine or polynomial decay.
///
///     const lowrank::learning_rate_schedule s{.kind = lowrank::decay::cosine, .steps = 1000, .warmup_steps = 50};
///     const double rate = 1e-3 * lowrank::learning_rate_share(s, step);
///
/// A pure function of the step: a resumed run continues as an uninterrupted one.

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The shape of the decay.
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
    double final_share = 0;  ///< At the last step and after it.
    double power = 2;        ///< Of polynomial decay.
};

/// The share of the peak rate at a step, counted from 0:
///
///     (step + 1) / (warmup + 1)    while step < warmup, then
///     f + (1 - f) d(u)             for u = (step - warmup) / (steps - 1 - warmup)
///
/// with d(u) = 1 - u, (1 + cos(pi u)) / 2 or (1 - u)^power and u at most 1; 1 throughout for constant.
/// \pre step >= 0, steps >= 1, warmup_steps >= 0, 0 <= final_share <= 1, power > 0.
LOWRANK_API [[nodiscard]] double learning_rate_share(const learning_rate_schedule& s, index step);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/train/schedule.ipp>
#endif

#endif  // LOWRANK_LORA_TRAIN_SCHEDULE_HPP

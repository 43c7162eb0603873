// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_SCHEDULE_IPP
#define LOWRANK_LORA_TRAIN_SCHEDULE_IPP

#include <lowrank/lora/train/schedule.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <lowrank/core/check.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY double learning_rate_share(const learning_rate_schedule& s, index step) {
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

#endif  // LOWRANK_LORA_TRAIN_SCHEDULE_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_JOINT_RANKS_IPP
#define LOWRANK_LASER_EDITS_JOINT_RANKS_IPP

#include <lowrank/laser/edits/joint_ranks.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY joint_plan joint_ranks(std::span<const sigma_scores> weights, std::span<const weight_shape> shapes,
                                    index budget, bool curvature) {
    detail::expects(weights.size() == shapes.size(), "joint_ranks: needs one shape per weight");
    detail::expects(budget >= 0, "joint_ranks: the budget must not be negative");
    std::vector<std::vector<double>> change(weights.size());
    double steepest = 0;
    for (std::size_t w = 0; w < weights.size(); ++w) {
        const auto& s = weights[w];
        detail::expects(s.size() == std::min(shapes[w].rows, shapes[w].cols),
                        "joint_ranks: a weight has min(rows, cols) components");
        double tail = 0;
        change[w].resize(static_cast<std::size_t>(s.size()) + 1);
        for (index k = s.size(); k >= 0; --k) {
            tail += curvature && k < s.size() ? 0.5 * s.sigma(k) * s.sigma(k) * s.fisher(k) : 0.0;
            change[w][static_cast<std::size_t>(k)] = s.change(k) + tail;
        }
        const auto [low, high] = std::minmax_element(change[w].begin(), change[w].end());
        steepest = std::max(steepest, *high - *low);
    }
    // Every weight's best rank when a parameter costs `price`; the smallest of equals.
    const auto plan_at = [&](double price) {
        joint_plan plan;
        for (std::size_t w = 0; w < weights.size(); ++w) {
            std::size_t best = 0;
            const auto numbers = [&](std::size_t k) {
                return stored_numbers(static_cast<index>(k), shapes[w].rows, shapes[w].cols);
            };
            const auto cost = [&](std::size_t k) { return change[w][k] + price * static_cast<double>(numbers(k)); };
            for (std::size_t k = 1; k < change[w].size(); ++k) {
                best = cost(k) < cost(best) ? k : best;
            }
            plan.ranks.push_back(static_cast<index>(best));
            plan.parameters += numbers(best);
            plan.predicted_change += change[w][best];
        }
        return plan;
    };
    joint_plan plan = plan_at(0);
    if (plan.parameters <= budget) {
        return plan;
    }
    double low = 0, high = 2 * steepest;  // at this price no component is worth its cost
    plan = plan_at(high);
    for (int i = 0; i < 100; ++i) {
        const double middle = 0.5 * (low + high);
        auto now = plan_at(middle);
        if (now.parameters <= budget) {
            plan = std::move(now);
            high = middle;
        } else {
            low = middle;
        }
    }
    return plan;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_JOINT_RANKS_IPP

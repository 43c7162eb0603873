// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_JOINT_RANKS_HPP
#define LOWRANK_LASER_EDITS_JOINT_RANKS_HPP

/// \file
/// Ranks for all matrices at once under a budget of parameters, by what the gradient predicts.
///
///     auto found = lowrank::gradient_search(model, {.validation = {0, 400}});       // or any sigma_scores
///     auto plan = lowrank::joint_ranks(found.scores, shapes, 200000);
///     log(plan.ranks[3], plan.predicted_change);
///
/// Minimizes sum_w change_w(k_w) subject to sum_w min(k_w (m_w + n_w), m_w n_w) <= budget, where change_w(k) is the predicted change
/// of the mean loss if weight w keeps its first k components. Lagrange multiplier and bisection: optimal among the
/// plans on the lower convex hull, which every budget rounds down to (Everett, Oper. Res. 11, 1963).

#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Rows and columns of a weight.
struct weight_shape {
    index rows = 0;
    index cols = 0;
};

struct joint_plan {
    std::vector<index> ranks = {};  ///< One per weight.
    index parameters = 0;           ///< sum min(k (m + n), m n), at most the budget.
    double predicted_change = 0;    ///< Of the mean loss, to first order: a ranking signal, not a forecast.
};

/// The ranks with the lowest predicted loss that the budget affords. `curvature` adds the Fisher term, which keeps the
/// prediction from promising gains far from the full rank.
///
/// \pre   one shape per weight, with min(rows, cols) components; budget >= 0.
/// \cost  O(64 sum of components).
LOWRANK_API [[nodiscard]] joint_plan joint_ranks(std::span<const sigma_scores> weights,
                                                 std::span<const weight_shape> shapes, index budget,
                                                 bool curvature = true);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/joint_ranks.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_JOINT_RANKS_HPP

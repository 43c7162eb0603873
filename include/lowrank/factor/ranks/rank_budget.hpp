// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP
#define LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP

/// \file
/// One parameter budget over many weights: who gets how many ranks.
///
///     std::vector<lowrank::budget_item> items;
///     for (const auto& s : spectra) {
///         items.push_back({.values = s.values().cast<double>(), .rows = s.rows(), .cols = s.cols()});
///     }
///     auto plan = lowrank::allocate_ranks(items, parameters / 2);
///
/// Each component of each weight buys s_i^2 for m + n parameters. Values descend, so taking the best price first takes
/// prefixes, and is optimal up to the last component that does not fit.

#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One weight: its singular values (plain, or in a weighting), its shape, and how its loss counts.
struct budget_item {
    vector<double> values = {};
    index rows = 0;
    index cols = 0;
    double importance = 1.0;  ///< Multiplies s^2; 1 / sum s^2 makes errors relative.
    index min_rank = 0;       ///< Kept whatever it costs.
    index max_rank = -1;      ///< Negative: all values.
};

/// Ranks in the order of the items, what they cost, and the squared error they leave.
struct rank_plan {
    std::vector<index> ranks = {};
    index parameters = 0;
    double loss = 0.0;  ///< sum importance sum_{i >= rank} s_i^2.
};

/// Ranks k_w that minimize sum_w importance_w sum_{i >= k_w} s_i^2 subject to sum_w k_w (m_w + n_w) <= budget.
///
/// Greedy by s_i^2 importance / (m + n), ties to the earlier item; a component that does not fit ends its item's
/// bidding, others go on. The loss is at most that of one component above the optimum.
/// \pre    Values are descending and not negative, importances and min_rank not negative, and the min_ranks fit.
/// \cost   O(total values log items).
LOWRANK_API [[nodiscard]] rank_plan allocate_ranks(const std::vector<budget_item>& items, index budget);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/ranks/rank_budget.ipp>
#endif

#endif  // LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP
#define LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP

/// \file
/// One parameter budget over many weights: who gets how many ranks.
///
///     std::vector<lowrank::budget_item> items;
///     for (const auto& f : spectra) {
///         items.push_back({.values = f.s.cast<double>(), .rows = f.rows(), .cols = f.cols()});
///     }
///     auto plan = lowrank::allocate_ranks(items, parameters / 2);
///
/// Each component of each weight buys s_i^2 for m + n parameters, and all that are left may be had for what is left of m n:
/// beyond break-even a weight stays as it is. Taking the best price first is optimal up to the last bid that does not fit.

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
    bool may_stay_dense =
        true;  ///< All values cost at most m n, unless `max_rank` forbids them. False: two factors always.
};

/// Ranks in the order of the items, what they cost, and the squared error they leave. A weight with as many ranks as
/// values stays dense, unless that is forbidden or factors are no larger.
struct rank_plan {
    std::vector<index> ranks = {};
    index parameters = 0;
    double loss = 0.0;  ///< sum importance sum_{i >= rank} s_i^2.
};

/// Ranks k_w that minimize sum_w importance_w sum_{i >= k_w} s_i^2 subject to sum_w min(k_w (m_w + n_w), m_w n_w) <= budget.
///
/// Greedy by what a bid takes off the loss for each parameter, ties to the earlier item: one more component, or the
/// whole weight where that is the better price. A bid that does not fit is taken back (the whole weight for one more
/// component, that for nothing), others go on. The loss is at most that of one bid above the optimum.
/// \pre    Values are descending and not negative, importances and min_rank not negative, and the min_ranks fit.
/// \cost   O(total values log items).
LOWRANK_API [[nodiscard]] rank_plan allocate_ranks(const std::vector<budget_item>& items, index budget);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/ranks/rank_budget.ipp>
#endif

#endif  // LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP

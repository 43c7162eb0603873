// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP
#define LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP

/// \file
/// One parameter budget over many weights: who gets how many ranks.
///
///     std::vector<lowrank::budget_item> items;
///     for (each weight) items.push_back({.values = spec.values().cast<double>(), .rows = m, .cols = n});
///     auto plan = lowrank::allocate_ranks(items, total_parameters / 2);
///
/// Each component of each weight buys s_i^2 for m + n parameters. Values descend, so taking the best price first takes
/// prefixes, and is optimal up to the last component that does not fit.

#include <algorithm>
#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One weight: its singular values (plain, or in a weighting), its shape, and how its loss counts.
struct budget_item {
    vector<double> values = {};
    index rows = 0;
    index cols = 0;
    double importance = 1.0;  ///< Multiplies s^2; 1 / sum s^2 makes errors relative.
    index min_rank = 0;       ///< Kept before anybody bids.
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
/// \pre    Values are descending and not negative, importances not negative, 0 <= least, and the least ranks fit.
/// \cost   O(total values log items).
[[nodiscard]] inline rank_plan allocate_ranks(const std::vector<budget_item>& items, index budget) {
    struct bid {
        double price;
        std::size_t item;
    };
    const auto worse = [](const bid& a, const bid& b) {
        return a.price < b.price || (a.price == b.price && a.item > b.item);
    };
    rank_plan plan;
    std::vector<bid> heap;
    const auto limit = [&](const budget_item& w) {
        return w.max_rank < 0 ? w.values.size() : std::min<index>(w.max_rank, w.values.size());
    };
    const auto push = [&](std::size_t at) {
        const budget_item& w = items[at];
        const index k = plan.ranks[at];
        if (k < limit(w) && w.values(k) > 0.0) {
            heap.push_back({w.importance * w.values(k) * w.values(k) / static_cast<double>(w.rows + w.cols), at});
            std::push_heap(heap.begin(), heap.end(), worse);
        }
    };
    for (const auto& w : items) {
        detail::expects_spectrum("allocate_ranks", w.values);
        detail::expects(w.importance >= 0.0 && w.min_rank >= 0 && w.rows >= 0 && w.cols >= 0,
                        "allocate_ranks: importance, least, rows and cols must not be negative");
        plan.ranks.push_back(std::min(w.min_rank, limit(w)));
        plan.parameters += plan.ranks.back() * (w.rows + w.cols);
    }
    detail::expects(plan.parameters <= budget, "allocate_ranks: the least ranks alone exceed the budget");
    for (std::size_t i = 0; i < items.size(); ++i) {
        push(i);
    }
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), worse);
        const std::size_t at = heap.back().item;
        heap.pop_back();
        const index cost = items[at].rows + items[at].cols;
        if (plan.parameters + cost <= budget) {
            plan.parameters += cost;
            ++plan.ranks[at];
            push(at);
        }
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
        const auto& w = items[i];
        plan.loss += w.importance * w.values.tail(w.values.size() - plan.ranks[i]).squaredNorm();
    }
    return plan;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_RANK_BUDGET_HPP

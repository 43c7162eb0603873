// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_BUDGET_IPP
#define LOWRANK_FACTOR_RANKS_RANK_BUDGET_IPP

#include <algorithm>
#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/rank_budget.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY rank_plan allocate_ranks(const std::vector<budget_item>& items, index budget) {
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
                        "allocate_ranks: importance, min_rank, rows and cols must not be negative");
        plan.ranks.push_back(std::min(w.min_rank, limit(w)));
        plan.parameters += plan.ranks.back() * (w.rows + w.cols);
    }
    detail::expects(plan.parameters <= budget, "allocate_ranks: the min_ranks alone exceed the budget");
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
        for (index k = w.values.size(); k-- > plan.ranks[i];) {
            plan.loss += w.importance * w.values(k) * w.values(k);
        }
    }
    return plan;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_RANK_BUDGET_IPP

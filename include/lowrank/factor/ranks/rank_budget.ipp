// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_BUDGET_IPP
#define LOWRANK_FACTOR_RANKS_RANK_BUDGET_IPP

#include <lowrank/factor/ranks/rank_budget.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY rank_plan allocate_ranks(const std::vector<budget_item>& items, index budget) {
    struct bid {
        double price;
        std::size_t item;
        index rank;  ///< What the item has afterwards.
    };
    const auto worse = [](const bid& a, const bid& b) {
        return a.price < b.price || (a.price == b.price && a.item > b.item);
    };
    rank_plan plan;
    std::vector<bid> heap;
    const auto limit = [](const budget_item& w) {
        return w.max_rank < 0 ? w.values.size() : std::min<index>(w.max_rank, w.values.size());
    };
    const auto cost = [&](const budget_item& w, index k) {
        const bool dense = w.may_stay_dense && k == w.values.size();
        return dense ? stored_numbers(k, w.rows, w.cols) : k * (w.rows + w.cols);
    };
    double largest = 0.0;
    for (const auto& w : items) {
        detail::expects_spectrum("allocate_ranks", w.values);
        detail::expects(w.importance >= 0.0 && w.min_rank >= 0 && w.rows >= 0 && w.cols >= 0,
                        "allocate_ranks: importance, min_rank, rows and cols must not be negative");
        largest = std::max(largest, w.values.size() > 0 ? std::sqrt(w.importance) * w.values(0) : 0.0);
    }
    const double unit = detail::power_of_two_scale(largest);  // squares neither overflow nor underflow
    const auto loss_of = [&](const budget_item& w, index i) {
        const double x = std::sqrt(w.importance) * w.values(i) * unit;
        return x * x;
    };
    std::vector<vector<double>> tails;  // of each item, what every rank leaves
    // The best price of an item among one more component and, if `whole`, all of them.
    const auto push = [&](std::size_t at, bool whole) {
        const budget_item& w = items[at];
        const index k = plan.ranks[at], all = w.values.size();
        if (k >= limit(w) || !(w.values(k) > 0.0)) {
            return;
        }
        const index now = cost(w, k), one = cost(w, k + 1), most = cost(w, all);
        bid best{loss_of(w, k) / static_cast<double>(one - now), at, k + 1};
        const bool useless = w.may_stay_dense && k + 1 < all && one >= most;  // for that, everything is to be had
        if (whole && w.may_stay_dense && limit(w) == all && most > now) {
            const double price = tails[at](k) / static_cast<double>(most - now);
            if (useless || price >= best.price) {
                best = {price, at, all};
            }
        } else if (useless && limit(w) == all) {
            return;
        }
        heap.push_back(best);
        std::push_heap(heap.begin(), heap.end(), worse);
    };
    for (const auto& w : items) {
        index k = std::min(w.min_rank, limit(w));
        if (limit(w) == w.values.size() && cost(w, k) >= cost(w, limit(w))) {
            k = limit(w);
        }
        plan.ranks.push_back(k);
        plan.parameters += cost(w, k);
        vector<double>& tail = tails.emplace_back();
        tail.setZero(w.values.size() + 1);
        for (index i = w.values.size(); i-- > 0;) {
            tail(i) = tail(i + 1) + loss_of(w, i);
        }
    }
    detail::expects(plan.parameters <= budget, "allocate_ranks: the min_ranks alone exceed the budget");
    for (std::size_t i = 0; i < items.size(); ++i) {
        push(i, true);
    }
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), worse);
        const bid next = heap.back();
        heap.pop_back();
        index& rank = plan.ranks[next.item];
        const index parameters = plan.parameters - cost(items[next.item], rank) + cost(items[next.item], next.rank);
        if (parameters <= budget) {
            plan.parameters = parameters;
            rank = next.rank;
            push(next.item, true);
        } else if (next.rank > rank + 1) {
            push(next.item, false);
        }
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
        plan.loss += tails[i](plan.ranks[i]) / unit / unit;
    }
    return plan;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_RANK_BUDGET_IPP

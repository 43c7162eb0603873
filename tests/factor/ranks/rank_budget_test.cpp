// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/rank_budget.hpp>

#include <limits>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

double loss_of(const std::vector<budget_item>& items, const std::vector<idx>& ranks) {
    double loss = 0.0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        const auto& w = items[i];
        loss += w.importance * w.values.tail(w.values.size() - ranks[i]).squaredNorm();
    }
    return loss;
}

}  // namespace

TEST_CASE("equal shapes: the plan is the optimum of all that fit") {
    const std::vector<budget_item> items{{.values = power_law(6, 0.5), .rows = 6, .cols = 6},
                                         {.values = geometric(6, 2.0, 0.5), .rows = 6, .cols = 6},
                                         {.values = power_law(6, 2.0), .rows = 6, .cols = 6, .importance = 4.0}};
    for (idx budget = 0; budget <= 220; budget += 5) {
        const auto plan = allocate_ranks(items, budget);
        CHECK(plan.parameters <= budget);
        CHECK(plan.loss == doctest::Approx(loss_of(items, plan.ranks)));
        double best = 1e300;
        for (idx a = 0; a <= 6; ++a) {
            for (idx b = 0; b <= 6; ++b) {
                for (idx c = 0; c <= 6; ++c) {
                    if (12 * (a + b + c) <= budget) {
                        best = std::min(best, loss_of(items, {a, b, c}));
                    }
                }
            }
        }
        CHECK(plan.loss == doctest::Approx(best).epsilon(1e-12));
    }
}

TEST_CASE("different shapes: within one component of the optimum, and monotone in the budget") {
    const std::vector<budget_item> items{{.values = power_law(8, 0.5), .rows = 8, .cols = 30},
                                         {.values = power_law(12, 0.7), .rows = 12, .cols = 12},
                                         {.values = geometric(5, 1.5, 0.7), .rows = 5, .cols = 9}};
    double last = 1e300;
    for (idx budget = 0; budget <= 700; budget += 10) {
        const auto plan = allocate_ranks(items, budget);
        CHECK(plan.parameters <= budget);
        double best = 1e300;
        for (idx a = 0; a <= 8; ++a) {
            for (idx b = 0; b <= 12; ++b) {
                for (idx c = 0; c <= 5; ++c) {
                    if (38 * a + 24 * b + 14 * c <= budget) {
                        best = std::min(best, loss_of(items, {a, b, c}));
                    }
                }
            }
        }
        CHECK(plan.loss >= best * (1 - 1e-12));
        CHECK(plan.loss <= best + 2.25);  // the largest single component
        CHECK(plan.loss <= last * (1 + 1e-12) + 0.3);
        last = std::min(last, plan.loss);
    }
    CHECK(last == doctest::Approx(0.0));
}

TEST_CASE("least, most, zeros, empty, contracts") {
    std::vector<budget_item> items{{.values = power_law(6, 1.0), .rows = 6, .cols = 6, .min_rank = 2, .max_rank = 3},
                                   {.values = vector<double>::Zero(4), .rows = 4, .cols = 4}};
    const auto plan = allocate_ranks(items, 1000);
    CHECK(plan.ranks == std::vector<idx>{3, 0});
    CHECK(allocate_ranks(items, 24).ranks == std::vector<idx>{2, 0});
    CHECK_THROWS_AS((void)allocate_ranks(items, 23), contract_violation);
    CHECK(allocate_ranks({}, 10).parameters == 0);
    items[0].values(2) = std::numeric_limits<double>::quiet_NaN();
    CHECK_THROWS_AS((void)allocate_ranks(items, 100), contract_violation);
}

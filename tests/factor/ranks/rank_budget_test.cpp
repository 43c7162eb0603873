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
    const std::vector<budget_item> items{
        {.values = power_law(6, 0.5), .rows = 6, .cols = 6, .may_stay_dense = false},
        {.values = geometric(6, 2.0, 0.5), .rows = 6, .cols = 6, .may_stay_dense = false},
        {.values = power_law(6, 2.0), .rows = 6, .cols = 6, .importance = 4.0, .may_stay_dense = false}};
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
    const std::vector<budget_item> items{
        {.values = power_law(8, 0.5), .rows = 8, .cols = 30, .may_stay_dense = false},
        {.values = power_law(12, 0.7), .rows = 12, .cols = 12, .may_stay_dense = false},
        {.values = geometric(5, 1.5, 0.7), .rows = 5, .cols = 9, .may_stay_dense = false}};
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

TEST_CASE("a weight may stay as it is for m n") {
    const vector<double> flat = vector<double>::Ones(64), lower = vector<double>::Constant(64, 0.9);
    const std::vector<budget_item> two{{.values = flat, .rows = 64, .cols = 64},
                                       {.values = lower, .rows = 64, .cols = 64}};
    const auto both = allocate_ranks(two, 8192);
    CHECK(both.ranks == std::vector<idx>{64, 64});
    CHECK(both.parameters == 8192);
    CHECK(both.loss == 0.0);
    const auto one = allocate_ranks(two, 8191);  // one stays, the other has the ranks that the rest affords
    CHECK(one.ranks == std::vector<idx>{64, 31});
    CHECK(one.parameters == 4096 + 31 * 128);
    CHECK(allocate_ranks({{.values = flat, .rows = 64, .cols = 64, .max_rank = 63}}, 100000).ranks[0] == 63);
    CHECK(allocate_ranks({{.values = flat, .rows = 64, .cols = 64, .min_rank = 40}}, 4096).ranks[0] == 64);

    const std::vector<budget_item> items{{.values = power_law(8, 0.5), .rows = 8, .cols = 30},
                                         {.values = power_law(12, 0.2), .rows = 12, .cols = 12},
                                         {.values = geometric(5, 1.5, 0.7), .rows = 5, .cols = 9}};
    for (idx budget = 0; budget <= 450; budget += 7) {
        const auto plan = allocate_ranks(items, budget);
        CHECK(plan.parameters <= budget);
        idx parameters = 0;
        for (std::size_t i = 0; i < items.size(); ++i) {
            parameters += stored_numbers(plan.ranks[i], items[i].rows, items[i].cols);
        }
        CHECK(plan.parameters == parameters);
        double best = 1e300;
        for (idx a = 0; a <= 8; ++a) {
            for (idx b = 0; b <= 12; ++b) {
                for (idx c = 0; c <= 5; ++c) {
                    if (stored_numbers(a, 8, 30) + stored_numbers(b, 12, 12) + stored_numbers(c, 5, 9) <= budget) {
                        best = std::min(best, loss_of(items, {a, b, c}));
                    }
                }
            }
        }
        CHECK(plan.loss >= best * (1 - 1e-12));
        CHECK(plan.loss <= best + loss_of({items[1]}, {0}));
    }
    CHECK(allocate_ranks(items, 8 * 30 + 12 * 12 + 5 * 9).loss == 0.0);
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

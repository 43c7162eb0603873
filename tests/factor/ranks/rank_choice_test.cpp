// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>

#include <cmath>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("a rank choice reads what the tool of its name reads") {
    vector<double> s(8);
    s << 8, 4, 2, 1, .5, .25, .125, .0625;
    const auto rank = [&](const char* name, double value, lowrank::index most = 100) {
        return choose_rank(s, {.rule = rank_rule_from_name(name).value(), .value = value, .max_rank = most});
    };
    CHECK(rank("sv_ratio", 2) == 2);  // the numbers of the scripts themselves
    CHECK(rank("sv_ratio", 5) == 4);
    CHECK(rank("sv_ratio", 100) == 8);
    CHECK(rank("sv_fro", .9) == 3);
    CHECK(rank("sv_fro", .99) == 4);
    CHECK(rank("sv_cumulative", .75) == 3);
    CHECK(rank("sv_cumulative", .9) == 5);
    CHECK(rank("energy", .5) == 1);
    CHECK(rank("energy", .99) == 4);
    CHECK(rank("ratio", .1) == 4);
    CHECK(rank("quantile", .9) == 3);
    CHECK(rank("threshold", 1) == 3);
    CHECK(rank("fixed", 5) == 5);
    CHECK(rank("fixed", 500, 1000) == 8);
    CHECK(rank("relative_error", 0) == 8);
    CHECK(rank("energy", .99, 2) == 2);
    CHECK(choose_rank(s, {.rule = rank_rule::threshold, .value = 9, .min_rank = 1}) == 1);
    CHECK_FALSE(rank_rule_from_name("90 %").has_value());
    CHECK_THROWS_AS((void)rank("fixed", 2.5), contract_violation);
    CHECK_THROWS_AS((void)choose_rank(s, {.max_rank = 1, .min_rank = 2}), contract_violation);
}

TEST_CASE("a rank choice from outside is checked before anything is computed") {
    const auto passes = [](rank_rule rule, double value) {
        return static_cast<bool>(check(rank_choice{.rule = rule, .value = value, .min_rank = 1}));
    };
    CHECK(passes(rank_rule::fixed, 8));
    CHECK_FALSE(passes(rank_rule::fixed, 2.5));
    CHECK_FALSE(passes(rank_rule::fixed, 0));
    CHECK_FALSE(passes(rank_rule::fixed, std::nan("")));
    CHECK(passes(rank_rule::energy, 1));
    CHECK_FALSE(passes(rank_rule::energy, 1.5));
    CHECK_FALSE(passes(rank_rule::quantile, -0.1));
    CHECK(passes(rank_rule::threshold, 1.5));
    CHECK(passes(rank_rule::kohya_ratio, 5));
    CHECK_FALSE(passes(rank_rule::kohya_ratio, 0.5));
    CHECK_FALSE(check(rank_choice{.max_rank = 1, .min_rank = 2}));
    CHECK(check(rank_choice{.rule = rank_rule::energy, .value = 2}).message ==
          "the rank rule needs a number from 0 to 1, got 2");
}

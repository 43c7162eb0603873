// SPDX-License-Identifier: MIT
#include <lowrank/factor/ranks/rank_choice.hpp>

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

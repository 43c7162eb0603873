// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/laser/search/sample_split.hpp>

#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("a split is a permutation, divided as asked, the same for one seed") {
    const auto a = split_samples(100, {.train = 0.5, .validation = 0.2, .seed = 3});
    CHECK(a.train == sample_range{0, 50});
    CHECK(a.validation == sample_range{50, 70});
    CHECK(a.test == sample_range{70, 100});
    auto sorted = a.order;
    std::sort(sorted.begin(), sorted.end());
    for (lowrank::index i = 0; i < 100; ++i) {
        CHECK(sorted[static_cast<std::size_t>(i)] == i);
    }
    CHECK(split_samples(100, {.seed = 3}).order == a.order);
    CHECK(split_samples(100, {.seed = 4}).order != a.order);
    CHECK(split_samples(100).train.size() == 0);
    CHECK(split_samples(100).validation == sample_range{0, 20});
}

TEST_CASE("every place is as likely for every sample") {
    // Sample 0 among the first half in about half of the splits: 200 trials, 4.2 standard deviations.
    int first_half = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        const auto s = split_samples(10, {.seed = seed});
        first_half += std::find(s.order.begin(), s.order.begin() + 5, 0) != s.order.begin() + 5 ? 1 : 0;
    }
    CHECK(first_half > 70);
    CHECK(first_half < 130);
}

TEST_CASE("no part that was asked for is empty, and too little is refused") {
    const auto two = split_samples(2, {.validation = 0.001});
    CHECK(two.validation == sample_range{0, 1});
    CHECK(two.test == sample_range{1, 2});
    const auto three = split_samples(3, {.train = 0.9, .validation = 0.09});
    CHECK(three.train.size() == 1);
    CHECK(three.validation.size() == 1);
    CHECK(three.test.size() == 1);
    CHECK_THROWS_AS((void)split_samples(1), contract_violation);
    CHECK_THROWS_AS((void)split_samples(2, {.train = 0.1}), contract_violation);
    CHECK_THROWS_AS((void)split_samples(10, {.train = 0.5, .validation = 0.5}), contract_violation);
    CHECK_THROWS_AS((void)split_samples(10, {.validation = 0}), contract_violation);
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/parallel.hpp>

#include <vector>

#include <doctest/doctest.h>

#include "support/executors.hpp"

using namespace lowrank;

TEST_CASE("an empty executor runs every index here, in order") {
    std::vector<lowrank::index> seen;
    parallel_for({}, 5, [&](lowrank::index i) { seen.push_back(i); });
    CHECK(seen == std::vector<lowrank::index>{0, 1, 2, 3, 4});
    seen.clear();
    parallel_for({}, 0, [&](lowrank::index i) { seen.push_back(i); });
    CHECK(seen.empty());
}

TEST_CASE("any executor runs each index once") {
    for (const auto& run : lowrank_tests::executors()) {
        for (const lowrank::index n : {0, 1, 2, 7, 100}) {
            std::vector<int> count(static_cast<std::size_t>(n), 0);
            parallel_for(run, n, [&](lowrank::index i) { ++count[static_cast<std::size_t>(i)]; });
            CHECK(count == std::vector<int>(static_cast<std::size_t>(n), 1));
        }
    }
}

TEST_CASE("a loop of one does not wake the pool") {
    int calls = 0;
    const executor run = [&](lowrank::index n, const task& body) {
        ++calls;
        for (lowrank::index i = 0; i < n; ++i) {
            body(i);
        }
    };
    int sum = 0;
    parallel_for(run, 1, [&](lowrank::index) { ++sum; });
    CHECK(calls == 0);
    parallel_for(run, 2, [&](lowrank::index) { ++sum; });
    CHECK(calls == 1);
    CHECK(sum == 3);
}

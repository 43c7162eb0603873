// SPDX-License-Identifier: MIT
#include <lowrank/core/progress.hpp>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("an empty callback never cancels") { CHECK(report({}, {.done = 3, .total = 4})); }

TEST_CASE("a callback sees where the work is, and its answer is passed on") {
    lowrank::index seen = -1;
    const progress_callback callback = [&](const progress& p) {
        seen = p.done;
        return p.done < 2;
    };
    CHECK(report(callback, {.done = 1, .total = 4, .what = "layer 1"}));
    CHECK(seen == 1);
    CHECK_FALSE(report(callback, {.done = 2, .total = 4}));
}

TEST_CASE("the fraction is defined when nothing is to do") {
    CHECK(progress{}.fraction() == 0.0);
    CHECK(progress{.done = 1, .total = 4}.fraction() == 0.25);
    CHECK(progress{.done = 4, .total = 4}.fraction() == 1.0);
}

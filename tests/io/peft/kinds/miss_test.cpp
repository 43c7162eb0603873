// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/miss.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of MiSS holds for a module of it") {
    lowrank_tests::check_kind(make_miss<float>(6, 4, {.r = 2}), 6, 4);
    lowrank_tests::check_kind(make_miss_bat<float>(6, 4, {.r = 2}), 6, 4);
}

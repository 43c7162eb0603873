// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/loha.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of LoHa holds for a module of it") {
    lowrank_tests::check_kind(make_loha<float>(6, 4, {.r = 2}), 6, 4);
}

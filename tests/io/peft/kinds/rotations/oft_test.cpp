// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/rotations/oft.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of OFT holds for a module of it") {
    lowrank_tests::check_kind(make_oft<float>(6, 4, {.block_size = 2}), 6, 4);
}

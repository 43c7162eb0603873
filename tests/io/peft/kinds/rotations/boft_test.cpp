// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/rotations/boft.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of BOFT holds for a module of it") {
    lowrank_tests::check_kind(peft_boft{.boft = make_boft<float>(6, 4, {.block_size = 2})}, 6, 4);
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/lokr.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of LoKr holds for a module of it") {
    lowrank_tests::check_kind(make_lokr<float>(6, 4, {.r = 1}), 6, 4);
}

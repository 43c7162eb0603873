// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/adalora.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of AdaLoRA holds for a module of it") {
    lowrank_tests::check_kind(make_adalora<float>(6, 4, {.init_r = 2}), 6, 4);
}

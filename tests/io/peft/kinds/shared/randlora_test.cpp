// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/shared/randlora.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of RandLoRA holds for a module of it") {
    lowrank_tests::check_kind(
        peft_randlora{.randlora = make_randlora(make_randlora_projections<float>(6, 4, {.r = 2}), 6, 4)}, 6, 4);
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/ia3.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of (IA)^3 holds for a module of it") {
    lowrank_tests::check_kind(peft_ia3{.scale = vector<float>::Ones(6)}, 6, 4);
    lowrank_tests::check_kind(peft_ia3{.scale = vector<float>::Ones(4), .is_feedforward = true}, 6, 4);
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/lora.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of LoRA holds for a module of it") {
    lowrank_tests::check_kind(peft_lora{.lora = make_lora<float>(6, 4, {.r = 2})}, 6, 4);
    CHECK(std::string(peft_kind<peft_lora>::label({.magnitude = vector<float>::Ones(6)})) == "DoRA");
    CHECK(type_of(peft_lora{}) == "LORA");
    CHECK(type_of(peft_lora{.magnitude_of_inputs = true}).empty());
    lowrank_tests::check_kind(make_lora<float>(6, 4, {.r = 2}), 6, 4);
}

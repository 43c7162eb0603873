// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/peft_format.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/rotations/oft.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("PEFT's format is a folder that holds what PEFT has names for") {
    const adapter_format peft = peft_format();
    CHECK(peft.recognizes({.is_folder = true}));
    CHECK_FALSE(peft.recognizes({.head = "GGUF"}));
    CHECK(peft.holds(loha_adapter<float>{}));
    CHECK_FALSE(peft.holds(output_rotation_adapter<float>{}));
    lora_tensors out;
    REQUIRE(peft.emit(out, "m", make_lora<float>(2, 3, {.r = 1}), {}));
    CHECK(out.tensors[1].name == "base_model.model.m.lora_B.weight");
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/loralib.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("loralib's names keep the scaling elsewhere") {
    lora_tensors out;
    REQUIRE(loralib_format().emit(out, "m", make_lora<float>(2, 3, {.r = 1}), {}));
    CHECK(out.tensors[0].name == "m.lora_A");
    CHECK(loralib_format().has_scaling_elsewhere);
    CHECK(loralib_format().parse("m.lora_B").what == lora_name::part::b);
}

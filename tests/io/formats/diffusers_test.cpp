// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/diffusers.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("diffusers has scaling 1, and its old names are those of attention projections") {
    lora_tensors out;
    auto lora = make_lora<float>(2, 2, {.r = 1, .lora_alpha = 2});
    lora.lora_B.setOnes();
    REQUIRE(diffusers_format().emit(out, "m", lora, {}));
    CHECK(out.tensors[1].name == "m.lora.up.weight");
    CHECK(reinterpret_cast<const float*>(out.tensors[1].bytes.data())[0] == 2);
    REQUIRE(diffusers_old_format().emit(out, "a.to_out.0", lora, {}));
    CHECK(out.tensors[2].name == "a.processor.to_out_lora.down.weight");
    CHECK(diffusers_old_format().emit(out, "mlp.up", lora, {}).message.find("diffusers_old cannot") !=
          std::string::npos);
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/kohya.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("LyCORIS takes a LoKr of two whole factors unscaled, so the scaling goes into one") {
    const matrix<float> m = matrix<float>::Ones(2, 2);
    const lokr_adapter<float> lokr{.w1 = {.left = m}, .w2 = {.left = m}, .alpha = 6, .r = 2};
    lora_tensors out;
    REQUIRE(kohya_format().emit_other(out, "a.b", lokr, {}));
    REQUIRE(out.tensors.size() == 3);
    CHECK(out.tensors[0].name == "lora_unet_a_b.alpha");
    CHECK(out.tensors[0].shape.empty());
    CHECK(out.tensors[1].name == "lora_unet_a_b.lokr_w1");
    CHECK(reinterpret_cast<const float*>(out.tensors[1].bytes.data())[0] == 3);
    CHECK(reinterpret_cast<const float*>(out.tensors[2].bytes.data())[0] == 1);
}

TEST_CASE("lengths of rows have the dimensions of the weight") {
    const peft_lora conv{
        .lora = make_lora<float>(6, 8, {.r = 2}), .magnitude = vector<float>::Ones(6), .kernel = {2, 2}};
    lora_tensors out;
    REQUIRE(kohya_format().emit_other(out, "lora_te_x", conv, {}));
    CHECK(out.tensors.back().name == "lora_te_x.dora_scale");
    CHECK(out.tensors.back().shape == std::vector<std::uint64_t>{6, 1, 1, 1});
    CHECK(kohya_format().emit_other(out, "x", peft_ia3{}, {}).message.find("(IA)^3") != std::string::npos);
}

TEST_CASE("kohya names find their module when exactly one fits") {
    const std::vector<std::string> paths = {"to_k", "a.to_k", "b_c.d", "b.c_d"};
    CHECK(unflatten_kohya_name("lora_unet_a_to_k", paths) == "a.to_k");
    CHECK(unflatten_kohya_name("lora_unet_to_k", paths) == "to_k");
    CHECK_FALSE(unflatten_kohya_name("lora_unet_b_c_d", paths));  // two readings
    CHECK_FALSE(unflatten_kohya_name("lora_unet_x", paths));
}

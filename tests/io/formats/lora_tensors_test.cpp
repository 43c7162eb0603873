// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/detail/lora_tensors.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("LyCORIS takes a LoKr of two whole factors unscaled, so the scaling goes into one") {
    const matrix<float> m = matrix<float>::Ones(2, 2);
    const lokr_adapter<float> lokr{.w1 = {.left = m}, .w2 = {.left = m}, .alpha = 6, .r = 2};
    std::vector<tensor_to_write> out;
    REQUIRE(detail::append_lycoris(out, "a.b", lokr, {}));
    REQUIRE(out.size() == 3);
    CHECK(out[0].name == "lora_unet_a_b.alpha");
    CHECK(out[0].shape.empty());
    CHECK(out[1].name == "lora_unet_a_b.lokr_w1");
    CHECK(reinterpret_cast<const float*>(out[1].bytes.data())[0] == 3);
    CHECK(reinterpret_cast<const float*>(out[2].bytes.data())[0] == 1);
}

TEST_CASE("lengths of rows have the dimensions of the weight") {
    const peft_lora conv{
        .lora = make_lora<float>(6, 8, {.r = 2}), .magnitude = vector<float>::Ones(6), .kernel = {2, 2}};
    std::vector<tensor_to_write> out;
    REQUIRE(detail::append_lycoris(out, "lora_te_x", conv, {}));
    CHECK(out.back().name == "lora_te_x.dora_scale");
    CHECK(out.back().shape == std::vector<std::uint64_t>{6, 1, 1, 1});
    CHECK(detail::append_mlx(out, "x", conv, {}).code == errc::unsupported);
    CHECK(detail::append_lycoris(out, "x", peft_ia3{}, {}).message.find("(IA)^3") != std::string::npos);
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/mlx.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("MLX stores transposed factors and holds DoRA of linear layers") {
    const adapter_format mlx = mlx_format();
    lora_tensors out;
    const auto lora = make_lora<float>(6, 8, {.r = 2, .lora_alpha = 3});
    REQUIRE(mlx.emit(out, "x", lora, {.mlx_scale = 1.5}));
    REQUIRE(out.tensors.size() == 2);
    CHECK(out.tensors[0].name == "x.lora_a");
    CHECK(out.tensors[0].shape == std::vector<std::uint64_t>{8, 2});
    CHECK(mlx.holds(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(6)}));
    CHECK_FALSE(mlx.holds(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(6), .kernel = {2, 2}}));
    CHECK_FALSE(mlx.holds(loha_adapter<float>{}));
}

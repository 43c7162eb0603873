// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/rotations/road.hpp>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io_support.hpp"
#include "lora/support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the description of RoAd holds for a module of it") {
    check_kind(make_road<float>(6, {.group_size = 2}), 6, 4);
}

TEST_CASE("merging turns weight and bias, at any strength; what is served must have no bias") {
    temporary_folder folder;
    auto road = make_road<float>(6, {.variant = 2, .group_size = 6});
    road.road_theta = random_matrix<float>(6, 1, 1);
    road.road_alpha += random_matrix<float>(6, 1, 2, 0.2F);
    peft_adapter adapter;
    adapter.modules["a"] = road;
    adapter.modules["b"] = road;
    adapter.config = peft_config_for(adapter);
    const row_matrix<float> w = random_weight<float>(6, 4, 3);
    const vector<float> bias = random_matrix<float>(6, 1, 4);
    std::filesystem::create_directory(folder / "base");
    REQUIRE(write_safetensors(folder / "base/model.safetensors",
                              {tensor_of("a.weight", w), tensor_of("a.bias", bias), tensor_of("b.weight", w)}));
    const auto base = checkpoint::open(folder / "base");
    REQUIRE(base);
    for (const double strength : {1.0, 0.25}) {
        const auto out = folder / ("merged" + std::to_string(strength));
        REQUIRE(merge_checkpoint(*base, adapter, out, {.strength = strength, .check = true}));
        const auto merged = checkpoint::open(out);
        REQUIRE(merged);
        row_matrix<float> both(6, 5);  // the bias as one more input
        both << w, bias;
        any_adapter<float> any = road;
        any.refresh(as_operator(both));
        matrix<float> want = matrix<float>::Zero(6, 5);
        workspace ws;
        any.add_product(as_operator(both), static_cast<float>(strength), matrix<float>(matrix<float>::Identity(5, 5)),
                        want, ws);
        CHECK(relative_diff(*merged->matrix<float>("a.weight"), matrix<double>(want.leftCols(4).cast<double>())) <
              1e-6);
        CHECK(relative_diff(*merged->matrix<float>("b.weight"), matrix<double>(want.leftCols(4).cast<double>())) <
              1e-6);
        CHECK(relative_diff(*merged->matrix<float>("a.bias"), matrix<double>(want.col(4).cast<double>().reshaped(
                                                                  merged->matrix<float>("a.bias")->rows(),
                                                                  merged->matrix<float>("a.bias")->cols()))) < 1e-6);
    }
    const auto plain = to_plain_lora(adapter, &*base);
    REQUIRE_FALSE(plain);
    CHECK(plain.error().message.find("changes the bias") != std::string::npos);
    adapter.modules.erase("a");
    CHECK(to_plain_lora(adapter, &*base));

    CHECK(to_any_adapter(peft_module(road), {.out = 6, .in = 4}, peft_applications()));
    const auto refused = to_any_adapter(peft_module(road), {.out = 6, .in = 4, .has_bias = true}, peft_applications());
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("bias") != std::string::npos);
}

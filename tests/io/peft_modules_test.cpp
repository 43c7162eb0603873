// SPDX-License-Identifier: MIT
#include <lowrank/io/peft_modules.hpp>

#include <memory>
#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("each kind of module says what it does to its layer") {
    auto lora = make_lora<float>(4, 3, {.r = 2, .lora_alpha = 6});
    lora.lora_B.setOnes();
    peft_lora dora{.lora = lora, .magnitude = vector<float>::Ones(4), .bias = vector<float>::Constant(4, 2)};
    const auto change = change_of(dora);
    CHECK(change.delta.dense() == lora.delta().dense());
    CHECK(change.magnitude == dora.magnitude);
    CHECK(change.bias == vector<float>::Constant(4, 6));  // scaling 3
    CHECK(change.has_delta());
    CHECK(std::string(kind_of(dora)) == "DoRA");
    dora.magnitude.resize(0);
    CHECK(std::string(kind_of(dora)) == "LoRA with a bias");

    const auto outputs = change_of(peft_ia3{.scale = vector<float>::Constant(4, 2)});
    CHECK(outputs.output_scale.size() == 4);
    CHECK(outputs.input_scale.size() == 0);
    CHECK_FALSE(outputs.has_delta());
    const auto inputs = change_of(peft_ia3{.scale = vector<float>::Constant(3, 2), .is_feedforward = true});
    CHECK(inputs.input_scale.size() == 3);
    CHECK(std::string(kind_of(peft_ia3{})) == "(IA)^3");
}

TEST_CASE("VeRA uses as many columns of the shared projection as the weight has") {
    auto vera = make_vera(make_vera_projections<float>(6, 5, 2, 1), 4, 5);
    vera.lambda_b.setOnes();
    CHECK(change_of(vera).delta.cols() == 5);
    peft_module fitted = vera;
    REQUIRE(fit_module(fitted, 4, 3));
    const auto narrow = change_of(fitted);
    CHECK(narrow.delta.rows() == 4);
    CHECK(narrow.delta.cols() == 3);
    CHECK(narrow.delta.dense() == change_of(vera).delta.dense().leftCols(3));
    CHECK(std::string(kind_of(vera)) == "VeRA");
}

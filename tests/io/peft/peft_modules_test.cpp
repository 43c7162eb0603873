// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/peft_modules.hpp>

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

TEST_CASE("modules say the shape of their weight, and are refused by others") {
    const auto is = [](const module_shape& s, lowrank::index out, lowrank::index in) {
        return s.out == out && s.in == in;
    };
    const matrix<float> a = matrix<float>::Ones(6, 2);
    const matrix<float> b = matrix<float>::Ones(2, 4);
    CHECK(is(shape_of(peft_lora{.lora = make_lora<float>(6, 4)}), 6, 4));
    CHECK(is(shape_of(loha_adapter<float>{.w1_a = a, .w1_b = b, .w2_a = a, .w2_b = b}), 6, 4));
    CHECK(is(shape_of(lokr_adapter<float>{.w1 = {.left = a}, .w2 = {.left = a, .right = b}}), 36, 8));
    CHECK(is(shape_of(hra_adapter<float>{.hra_u = a}), 0, 6));
    CHECK(is(shape_of(peft_ia3{.scale = vector<float>::Ones(3)}), 0, 0));
    const auto vera = make_vera(make_vera_projections<float>(6, 5, 2, 1), 6, 5);
    CHECK(is(shape_of(vera), 6, 5));
    for (const auto& [out, in] : {std::pair(6, 6), std::pair(5, 5)}) {  // wider than the projection, other outputs
        peft_module module = vera;
        CHECK(fit_module(module, out, in).code == errc::mismatch);
    }
}

TEST_CASE("a LoHa of few columns is a product, one of many adds rows") {
    for (const auto& [r, is_product] : {std::pair(2, true), std::pair(3, false)}) {  // r^2 columns of 32
        const auto made = make_loha<float>(40, 32, {.r = r});
        CHECK(formed_rank(made) == r * r);
        const auto lean = change_without_factors(made);
        CHECK(lean.has_delta() == is_product);
        CHECK(lean.rows.has_value() != is_product);
    }
    CHECK(formed_rank(peft_lora{}) == 0);
}

TEST_CASE("LoHa and LoKr add the rows of their change") {
    const auto normal = [](lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
        matrix<float> m(rows, cols);
        fill_normal(m, 0.5F, philox(1, stream));
        return m;
    };
    const peft_module modules[] = {
        loha_adapter<float>{
            .w1_a = normal(6, 2, 0), .w1_b = normal(2, 4, 1), .w2_a = normal(6, 3, 2), .w2_b = normal(3, 4, 3)},
        lokr_adapter<float>{.w1 = {.left = normal(3, 2, 4)}, .w2 = {.left = normal(2, 1, 5), .right = normal(1, 2, 6)}},
    };
    for (const peft_module& module : modules) {
        const auto lean = change_without_factors(module);
        REQUIRE(lean.rows);
        CHECK(lean.is_additive);
        CHECK(lean.rows->fits(6, 4));
        CHECK_FALSE(lean.rows->fits(4, 6));
        const matrix<double> change = change_of(module).delta.dense().cast<double>();
        const matrix<double> old = matrix<double>::Constant(4, 5, 0.75);
        workspace ws;
        for (const double t : {1.0, -0.25}) {
            const auto rows = detail::added_at_strength(*lean.rows, t);
            matrix<double> now = old;
            rows.forward(1, now, ws);
            CHECK((now - old - t * change.middleRows(1, 5).transpose()).cwiseAbs().maxCoeff() < 1e-6);
            rows.backward(1, now, ws);
            CHECK((now - old).cwiseAbs().maxCoeff() < 1e-15);
        }
    }
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/adalora.hpp>
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/kinds/miss.hpp>
#include <lowrank/io/peft/kinds/rotations/boft.hpp>
#include <lowrank/io/peft/kinds/rotations/hra.hpp>
#include <lowrank/io/peft/kinds/rotations/oft.hpp>
#include <lowrank/io/peft/kinds/shared/randlora.hpp>
#include <lowrank/io/peft/kinds/shared/vera.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

#include <memory>
#include <string>

#include <doctest/doctest.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/kinds/lora_forms/merged_linear.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

using namespace lowrank;

TEST_CASE("each kind of module says what it does to its layer") {
    auto lora = make_lora<float>(4, 3, {.r = 2, .lora_alpha = 6});
    lora.lora_B.setOnes();
    peft_lora dora{.lora = lora, .magnitude = vector<float>::Ones(4), .bias = vector<float>::Constant(4, 2)};
    const auto change = change_of(dora);
    const auto& lengths = std::get<magnitude_change<float>>(change.weight);
    CHECK(lengths.delta.dense() == lora.delta().dense());
    CHECK(lengths.magnitude == dora.magnitude);
    CHECK(change.bias == vector<float>::Constant(4, 6));  // scaling 3
    CHECK_FALSE(change.is_unknown());
    CHECK((kind_of(dora)) == "DoRA");
    dora.magnitude.resize(0);
    CHECK((kind_of(dora)) == "LoRA with a bias");

    const auto outputs = change_of(peft_ia3{.scale = vector<float>::Constant(4, 2)});
    CHECK(std::get<scaled_change<float>>(outputs.weight).row_scale.size() == 4);
    CHECK(std::get<scaled_change<float>>(outputs.weight).column_scale.size() == 0);
    const auto inputs = change_of(peft_ia3{.scale = vector<float>::Constant(3, 2), .is_feedforward = true});
    CHECK(std::get<scaled_change<float>>(inputs.weight).column_scale.size() == 3);
    CHECK((kind_of(peft_ia3{})) == "(IA)^3");
}

TEST_CASE("VeRA uses as many columns of the shared projection as the weight has") {
    auto vera = make_vera(make_vera_projections<float>(6, 5, 2, 1), 4, 5);
    vera.lambda_b.setOnes();
    const auto factors = [](const peft_module& m) { return std::get<low_rank<float>>(change_of(m).weight); };
    CHECK(factors(vera).cols() == 5);
    peft_module fitted = vera;
    REQUIRE(fit_module(fitted, 4, 3));
    const auto narrow = factors(fitted);
    CHECK(narrow.rows() == 4);
    CHECK(narrow.cols() == 3);
    CHECK(narrow.dense() == factors(vera).dense().leftCols(3));
    CHECK((kind_of(vera)) == "VeRA");
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
        CHECK(std::holds_alternative<low_rank<float>>(lean.weight) == is_product);
        CHECK(std::holds_alternative<added_rows_change>(lean.weight) != is_product);
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
        REQUIRE(std::holds_alternative<added_rows_change>(lean.weight));
        const auto& added = std::get<added_rows_change>(lean.weight).rows;
        CHECK(added.fits(6, 4));
        CHECK_FALSE(added.fits(4, 6));
        const matrix<double> change = std::get<low_rank<float>>(change_of(module).weight).dense().cast<double>();
        const matrix<double> old = matrix<double>::Constant(4, 5, 0.75);
        workspace ws;
        for (const double t : {1.0, -0.25}) {
            const auto changed = at_strength(lean.weight, t);
            const auto& rows = std::get<added_rows_change>(changed).rows;
            matrix<double> now = old;
            rows.forward(1, now, ws);
            CHECK((now - old - t * change.middleRows(1, 5).transpose()).cwiseAbs().maxCoeff() < 1e-6);
            rows.backward(1, now, ws);
            CHECK((now - old).cwiseAbs().maxCoeff() < 1e-15);
        }
    }
}

TEST_CASE("a module becomes an adapter that serves, and the adapter a module again") {
    const adapted_weight layer{.out = 6, .in = 4};
    auto lora = make_lora<float>(6, 4, {.r = 2});
    lora.lora_B.setOnes();
    row_matrix<float> w(6, 4);
    fill_normal(w, 0.5F, philox(3));
    const peft_module modules[] = {
        peft_lora{.lora = lora},
        peft_lora{.lora = lora, .magnitude = vector<float>::Ones(6)},
        peft_ia3{.scale = vector<float>::Constant(6, 2)},
        peft_ia3{.scale = vector<float>::Constant(4, 2), .is_feedforward = true},
        make_adalora<float>(6, 4, {.init_r = 2}),
        make_loha<float>(6, 4, {.r = 2}),
        make_lokr<float>(6, 4, {.r = 1}),
        make_vera(make_vera_projections<float>(6, 5, 2, 1), 6, 4),
        make_oft<float>(6, 4, {.block_size = 2}),
        peft_boft{.boft = make_boft<float>(6, 4, {.block_size = 2})},
        make_hra<float>(6, 4, {.r = 2}),
        make_miss<float>(6, 4, {.r = 2}),
        make_miss_bat<float>(6, 4, {.r = 2}),
        output_rotation_adapter<float>{.blocks = w.leftCols(2), .block_count = 3},
        peft_randlora{.randlora = make_randlora(make_randlora_projections<float>(6, 4, {.r = 2}), 6, 4)},
        make_hira<float>(6, 4, {.r = 2}),
    };
    for (const peft_module& module : modules) {
        CAPTURE(kind_of(module));
        auto a = to_any_adapter(module, layer);
        REQUIRE(a.has_value());
        a->refresh(as_operator(w));
        CHECK(a->rows() == 6);
        CHECK(a->cols() == 4);
        const auto back = to_peft_module(*a);
        REQUIRE(back.has_value());
        CHECK((kind_of(*back)) == kind_of(module));
        // What the module does to the weight is what the adapter does.
        const matrix<double> dense = w.cast<double>();
        const matrix<double> of_module = changed(change_of(*back).weight, dense);
        CHECK((of_module - changed(a->change(), dense)).norm() < 1e-5);
    }
    peft_lora biased{.lora = lora, .bias = vector<float>::Ones(6)};
    CHECK(to_any_adapter(biased, layer).error().code == errc::unsupported);
    CHECK(to_any_adapter(peft_lora{.lora = lora}, {.out = 5, .in = 4}).error().code == errc::mismatch);
    CHECK(
        to_any_adapter(peft_ia3{.scale = vector<float>::Ones(6)}, {.out = 6, .in = 4, .has_bias = true}).error().code ==
        errc::unsupported);
    CHECK_FALSE(to_peft_module(merged_linear_adapter<float>{
        .lora_A = matrix<float>::Ones(2, 4), .lora_B = matrix<float>::Ones(3, 2), .enable = {true, false}}));
}

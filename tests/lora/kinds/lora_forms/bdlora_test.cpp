// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/lora_forms/bdlora.hpp>

#include "lora/some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("BD-LoRA: block i of A multiplies part i of the inputs, block i of B makes part i of the outputs") {
    const bdlora_adapter<double> a{.lora_A = random_matrix<double>(4, 3, 1),
                                   .lora_B = random_matrix<double>(9, 4, 2),
                                   .blocks_A = 2,
                                   .lora_alpha = 6,
                                   .use_rslora = true};
    matrix<double> whole_a = matrix<double>::Zero(4, 6);
    whole_a.block(0, 0, 2, 3) = a.lora_A.topRows(2);
    whole_a.block(2, 3, 2, 3) = a.lora_A.bottomRows(2);
    CHECK(max_abs_diff(a.delta().dense(), matrix<double>(3 * a.lora_B * whole_a)) < 1e-13);
    const bdlora_adapter<double> b{.lora_A = random_matrix<double>(4, 5, 3),
                                   .lora_B = random_matrix<double>(6, 2, 4),
                                   .blocks_B = 2,
                                   .lora_alpha = 8};
    matrix<double> whole_b = matrix<double>::Zero(6, 4);
    whole_b.block(0, 0, 3, 2) = b.lora_B.topRows(3);
    whole_b.block(3, 2, 3, 2) = b.lora_B.bottomRows(3);
    CHECK(max_abs_diff(b.delta().dense(), matrix<double>(2 * whole_b * b.lora_A)) < 1e-13);
    CHECK(any_adapter<double>(b).parameter_count() == 4 * 5 + 6 * 2);
}

TEST_CASE("BD-LoRA drops inputs in training as LoRA does") {
    const dropout_key key{.probability = 0.5, .seed = 3, .layer = 1, .step = 2};
    const auto x = random_matrix<double>(8, 70, 5);
    auto plain = random_adapter<double>(12, 8, {.r = 4, .lora_alpha = 8, .lora_dropout = 0.5});
    const any_adapter<double> want = plain;
    const any_adapter<double> got =
        bdlora_adapter<double>{.lora_A = plain.lora_A, .lora_B = plain.lora_B, .lora_alpha = 8, .lora_dropout = 0.5};
    CHECK(got.dropout() == 0.5);
    const row_matrix<double> w = random_weight<double>(12, 8, 1);
    workspace ws;
    const auto pass = [&](const any_adapter<double>& a) {
        matrix<double> y = matrix<double>::Zero(12, 70);
        a.add_product(as_operator(w), 1, x, y, ws, key);
        matrix<double> dx = matrix<double>::Zero(8, 70);
        column_view<double> dx_view = dx;
        auto g = a.zero_gradient();
        a.backward(as_operator(w), 1, x, y, g, &dx_view, ws, key);
        vector<double> flat = vector<double>::Zero(a.parameter_count());
        a.pull_back(g, std::span(flat.data(), static_cast<std::size_t>(flat.size())));
        return std::tuple(y, dx, flat);
    };
    CHECK(relative_diff(std::get<0>(pass(got)), std::get<0>(pass(want))) < 1e-13);
    CHECK(relative_diff(std::get<1>(pass(got)), std::get<1>(pass(want))) < 1e-13);
    CHECK(relative_diff(std::get<2>(pass(got)), std::get<2>(pass(want))) < 1e-13);
}

TEST_CASE("BD-LoRA: blocks that do not divide are refused") {
    CHECK_THROWS_AS((void)make_bdlora<float>(12, 8, {.r = 3, .blocks_A = 2}), contract_violation);
    CHECK_THROWS_AS((void)make_bdlora<float>(9, 8, {.r = 4, .blocks_B = 2}), contract_violation);
    auto a = make_bdlora<float>(12, 8, {.r = 4, .blocks_B = 2});
    CHECK(detail::all_zero(a.delta().dense()));
    a.blocks_B = 4;
    CHECK_THROWS_AS(any_adapter<float>{a}, contract_violation);
}

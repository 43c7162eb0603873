// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/lora_forms/qalora.hpp>

#include "lora/some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("QA-LoRA: A acts on the means of groups of inputs, times their number") {
    const qalora_adapter<double> a{
        .lora = {.lora_A = random_matrix<double>(2, 3, 1), .lora_B = random_matrix<double>(5, 2, 2), .lora_alpha = 6},
        .group_size = 4};
    CHECK(a.cols() == 12);
    matrix<double> means = matrix<double>::Zero(3, 12);
    for (lowrank::index i = 0; i < 12; ++i) {
        means(i / 4, i) = 3.0 / 4;
    }
    const matrix<double> want = 3 * a.lora.lora_B * a.lora.lora_A * means;
    CHECK(max_abs_diff(a.delta().dense(), want) < 1e-13);
    CHECK(any_adapter<double>(a).parameter_count() == 2 * 3 + 5 * 2);
}

TEST_CASE("QA-LoRA drops inputs before they are averaged, and the way back drops the same") {
    const dropout_key key{.probability = 0.5, .seed = 3, .layer = 1, .step = 2};
    any_adapter<double> a = qalora_adapter<double>{.lora = {.lora_A = random_matrix<double>(2, 2, 1),
                                                            .lora_B = random_matrix<double>(12, 2, 2),
                                                            .lora_dropout = 0.5},
                                                   .group_size = 4};
    const row_matrix<double> w = random_weight<double>(12, 8, 1);
    auto x = random_matrix<double>(8, 70, 5);
    const auto dy = random_matrix<double>(12, 70, 6);
    workspace ws;
    const auto loss = [&] {
        matrix<double> y = matrix<double>::Zero(12, 70);
        a.add_product(as_operator(w), 1, x, y, ws, key);
        return y.cwiseProduct(dy).sum();
    };
    matrix<double> dx = matrix<double>::Zero(8, 70);
    column_view<double> dx_view = dx;
    auto g = a.zero_gradient();
    a.backward(as_operator(w), 1, x, dy, g, &dx_view, ws, key);
    CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-8);
    CHECK(dx.cwiseEqual(0).count() > 100);
}

TEST_CASE("QA-LoRA: groups that do not divide the inputs are refused") {
    CHECK_THROWS_AS((void)make_qalora<float>(12, 8, 3), contract_violation);
    const auto a = make_qalora<float>(12, 8, 4, {.r = 2});
    CHECK(a.lora.lora_A.cols() == 2);
    CHECK(detail::all_zero(a.delta().dense()));
}

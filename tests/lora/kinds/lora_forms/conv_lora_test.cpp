// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/lora_forms/conv_lora.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/layers/conv.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the change is the product, read again row by row; gradients agree with finite differences") {
    // 8 outputs, 4 inputs in 2 groups, 3 x 3: A is (2 * 3) x (4 * 3), B (8 / 2 * 3) x (2 * 3), W 8 x (2 * 9).
    conv_lora_adapter<double> a{.lora_A = random_matrix<double>(6, 12, 1),
                                .lora_B = random_matrix<double>(12, 6, 2),
                                .out = 8,
                                .in = 18,
                                .r = 2,
                                .lora_alpha = 5};
    const row_matrix<double> product = 2.5 * a.lora_B * a.lora_A;
    const auto dense = a.dense_delta();
    for (lowrank::index i = 0; i < 144; ++i) {
        CHECK(dense(i / 18, i % 18) == doctest::Approx(product(i / 12, i % 12)));
    }
    const auto x = random_matrix<double>(36, 5, 3);
    const auto dy = random_matrix<double>(8, 5, 4);
    const auto loss = [&] {
        const row_matrix<double> w = a.dense_delta();
        return apply(grouped_operator<double>(w, 2), x).cwiseProduct(dy).sum();
    };
    const auto gradient = a.pull_back(weight_gradient(x, dy, 2));
    CHECK(relative_diff(gradient.lora_A, numeric_gradient(a.lora_A, loss)) < 1e-7);
    CHECK(relative_diff(gradient.lora_B, numeric_gradient(a.lora_B, loss)) < 1e-7);
    a.in = 17;
    CHECK_THROWS_AS((void)a.dense_delta(), contract_violation);
    CHECK_THROWS_AS((void)weight_gradient(x, dy, 3), contract_violation);
}

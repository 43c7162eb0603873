// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/lora_forms/merged_linear.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(factored_adapter<merged_linear_adapter<float>>);

TEST_CASE("part j of the enabled ones changes its own rows; the others stay zero") {
    const merged_linear_adapter<double> a{.lora_A = random_matrix<double>(4, 6, 1),
                                          .lora_B = random_matrix<double>(10, 2, 2),
                                          .enable = {true, false, true},
                                          .lora_alpha = 3};
    const auto dense = a.delta().dense();
    REQUIRE(dense.rows() == 15);
    CHECK(dense.middleRows(5, 5).isZero(0));
    const matrix<double> first = 1.5 * a.lora_B.topRows(5) * a.lora_A.topRows(2);
    const matrix<double> third = 1.5 * a.lora_B.bottomRows(5) * a.lora_A.bottomRows(2);
    CHECK(max_abs_diff(dense.topRows(5), first) < 1e-14);
    CHECK(max_abs_diff(dense.bottomRows(5), third) < 1e-14);
}

TEST_CASE("gradients agree with finite differences to 1e-7; wrong shapes are refused") {
    merged_linear_adapter<double> a{.lora_A = random_matrix<double>(4, 6, 1),
                                    .lora_B = random_matrix<double>(10, 2, 2),
                                    .enable = {false, true, true},
                                    .lora_alpha = 3};
    const auto x = random_matrix<double>(6, 4, 3);
    const auto dy = random_matrix<double>(15, 4, 4);
    const auto loss = [&] { return apply(a.delta(), x).cwiseProduct(dy).sum(); };
    const auto change = a.delta();
    auto g = zero_gradient(change);
    workspace ws;
    delta_backward(change, x, dy, g, nullptr, ws);
    const auto gradient = a.pull_back(g);
    CHECK(relative_diff(gradient.lora_A, numeric_gradient(a.lora_A, loss)) < 1e-7);
    CHECK(relative_diff(gradient.lora_B, numeric_gradient(a.lora_B, loss)) < 1e-7);
    a.enable = {true, false, false};
    CHECK_THROWS_AS((void)a.delta(), contract_violation);
}

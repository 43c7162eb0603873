// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/kinds/adalora.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the change is scaling * B diag(E) A with the initial rank in the scaling; gradients are right") {
    adalora_adapter<double> a{.lora_A = random_matrix<double>(3, 6, 1),
                              .lora_B = random_matrix<double>(5, 3, 2),
                              .lora_E = random_matrix<double>(3, 1, 3),
                              .lora_alpha = 16,
                              .ranknum = 4};
    const matrix<double> want = 16 / (4 + 1e-5) * a.lora_B * a.lora_E.asDiagonal() * a.lora_A;
    CHECK(max_abs_diff(a.delta().dense(), want) < 1e-13);
    const auto g = probe_gradient(a);
    const auto loss = [&] { return probe_loss(a); };
    CHECK(relative_diff(g.lora_A, numeric_gradient(a.lora_A, loss)) < 1e-7);
    CHECK(relative_diff(g.lora_B, numeric_gradient(a.lora_B, loss)) < 1e-7);
    CHECK(relative_diff(g.lora_E, numeric_gradient(a.lora_E, loss)) < 1e-7);
    a.lora_E.resize(2);
    CHECK_THROWS_AS((void)a.delta(), contract_violation);
}

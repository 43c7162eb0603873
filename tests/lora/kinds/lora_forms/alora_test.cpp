// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora_forms/alora.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the adapter starts with the last occurrence of its invocation") {
    using tokens = std::vector<std::int64_t>;
    CHECK(alora_start(tokens{5, 1, 2, 3, 1, 2, 9}, tokens{1, 2}) == 4);
    CHECK(alora_start(tokens{1, 1, 1, 1}, tokens{1, 1}) == 2);
    CHECK(alora_start(tokens{4, 5, 6}, tokens{6}) == 2);
    CHECK(alora_start(tokens{4, 5, 6}, tokens{6, 4}) == 3);
    CHECK(alora_start(tokens{4, 5}, tokens{4, 5, 6}) == 2);
    CHECK(alora_start(tokens{}, tokens{4}) == 0);
    CHECK(alora_offset(4, 7) == 3);
    CHECK_THROWS_AS((void)alora_start(tokens{1}, tokens{}), contract_violation);
}

TEST_CASE("only active columns change and give gradients, whole prompts and decoded tokens alike") {
    const alora_adapter<double> a{.lora = random_adapter<double>(5, 6, {.r = 2, .lora_alpha = 4}),
                                  .invocation_tokens = {1}};
    const auto x = random_matrix<double>(6, 8, 1);  // two rows of four tokens
    const auto dy = random_matrix<double>(5, 8, 2);
    const std::vector<lowrank::index> starts{1, 4};
    workspace ws;
    auto y = random_matrix<double>(5, 8, 3);
    const auto before = y;
    alora_forward(a, 0.5, starts, x, y, ws);
    matrix<double> want = before;
    want.middleCols(1, 3) += apply(a.lora.delta(0.5), x).middleCols(1, 3);
    CHECK(max_abs_diff(y, want) < 1e-13);
    CHECK(same_bits(matrix<double>(y.middleCols(4, 4)), matrix<double>(before.middleCols(4, 4))));
    CHECK(same_bits(matrix<double>(y.leftCols(1)), matrix<double>(before.leftCols(1))));

    auto g = zero_gradient(a.lora);
    matrix<double> dx = matrix<double>::Zero(6, 8);
    column_view<double> dx_view = dx;
    alora_backward(a, 0.5, starts, x, dy, g, &dx_view, ws);
    auto active = zero_gradient(a.lora);
    matrix<double> dx_active = matrix<double>::Zero(6, 3);
    column_view<double> dx_active_view = dx_active;
    const matrix<double> x_part = x.middleCols(1, 3);
    const matrix<double> dy_part = dy.middleCols(1, 3);
    lora_backward(a.lora, 0.5, x_part, dy_part, active, &dx_active_view, ws);
    CHECK(max_abs_diff(g.lora_A, active.lora_A) < 1e-13);
    CHECK(max_abs_diff(g.lora_B, active.lora_B) < 1e-13);
    CHECK(max_abs_diff(dx.middleCols(1, 3), dx_active) < 1e-13);
    CHECK(detail::all_zero(dx.rightCols(4)));

    // Token by token with a cache: the same outputs.
    matrix<double> decoded = before;
    for (lowrank::index t = 0; t < 4; ++t) {
        matrix<double> x_t(6, 2);
        matrix<double> y_t(5, 2);
        x_t << x.col(t), x.col(4 + t);
        y_t << decoded.col(t), decoded.col(4 + t);
        alora_forward(a, 0.5, starts, x_t, y_t, ws, t);
        decoded.col(t) = y_t.col(0);
        decoded.col(4 + t) = y_t.col(1);
    }
    CHECK(max_abs_diff(decoded, y) < 1e-13);
    const std::vector<lowrank::index> three{1, 2, 3};
    CHECK_THROWS_AS(alora_forward(a, 0.5, three, x, y, ws), contract_violation);
}

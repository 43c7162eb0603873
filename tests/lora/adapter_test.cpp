// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("gradients of the factors agree with finite differences to 1e-7") {
    low_rank<double> change{.left = random_matrix<double>(5, 3, 1), .right = random_matrix<double>(3, 6, 2)};
    auto x = random_matrix<double>(6, 4, 3);
    const auto g = random_matrix<double>(5, 4, 4);
    const auto loss = [&] {
        const auto y = apply(change, x);
        return (g.array() * y.array() + y.array().cube() / 3).sum();
    };
    const matrix<double> dy = g.array() + apply(change, x).array().square();
    auto gradient = zero_gradient(change);
    matrix<double> dx = matrix<double>::Zero(6, 4);
    column_view<double> dx_view = dx;
    workspace ws;
    delta_backward(change, x, dy, gradient, &dx_view, ws);
    CHECK(relative_diff(gradient.left, numeric_gradient(change.left, loss)) < 1e-7);
    CHECK(relative_diff(gradient.right, numeric_gradient(change.right, loss)) < 1e-7);
    CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);

    const auto before = allocation_count();
    delta_backward(change, x, dy, gradient, &dx_view, ws);
    CHECK(allocation_count() == before);
    CHECK_THROWS_AS(delta_backward(change, dy, dy, gradient, nullptr, ws), contract_violation);
    const low_rank<double> none{.left = matrix<double>(5, 0), .right = matrix<double>(0, 6)};
    auto nothing = zero_gradient(none);
    delta_backward(none, x, dy, nothing, nullptr, ws);
    CHECK(nothing.left.size() == 0);
}

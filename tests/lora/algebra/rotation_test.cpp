// SPDX-License-Identifier: MIT
#include <lowrank/lora/algebra/rotation.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/rotations/boft.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<rotated_linear<block_rotation<float>>>);
static_assert(input_rotation<block_rotation<double>>);
static_assert(rotating_adapter<boft_adapter<float>>);

TEST_CASE("a rotated layer is diag(s) W R, both ways, and its gradients agree with finite differences") {
    const auto w = random_weight<double>(5, 8, 1);
    auto a = make_boft<double>(5, 8, {.block_size = 2, .n_butterfly_factor = 3});
    a.boft_R = random_matrix<double>(24, 2, 2);
    for (const bool scaled : {false, true}) {
        a.boft_s = scaled ? vector<double>(random_matrix<double>(5, 1, 3)) : vector<double>();
        auto layer = rotate(any_operator<double>(as_operator(w)), a);
        const matrix<double> r = apply(layer.rotation, matrix<double>(matrix<double>::Identity(8, 8)));
        const matrix<double> want = scaled ? matrix<double>(a.boft_s.asDiagonal() * w * r) : matrix<double>(w * r);
        auto x = random_matrix<double>(8, 4, 4);
        const auto dy = random_matrix<double>(5, 4, 5);
        CHECK(max_abs_diff(apply(layer, x), want * x) < 1e-13);
        CHECK(max_abs_diff(apply_transposed(layer, dy), want.transpose() * dy) < 1e-13);

        auto g = zero_gradient(layer);
        matrix<double> dx = matrix<double>::Zero(8, 4);
        column_view<double> dx_view = dx;
        workspace ws;
        rotated_backward(layer, x, dy, g, &dx_view, ws);
        const auto loss = [&] { return apply(layer, x).cwiseProduct(dy).sum(); };
        CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);
        for (std::size_t k = 0; k < 3; ++k) {
            CHECK(relative_diff(g.rotation.factors[k].blocks,
                                numeric_gradient(layer.rotation.factors[k].blocks, loss)) < 1e-7);
        }
        if (scaled) {
            CHECK(relative_diff(g.output_scale, numeric_gradient(layer.output_scale, loss)) < 1e-7);
        }
        // A second backward adds.
        const auto once = g.rotation.factors[0].blocks;
        rotated_backward(layer, x, dy, g, nullptr, ws);
        CHECK(max_abs_diff(g.rotation.factors[0].blocks, 2 * once) < 1e-13);
    }
}

TEST_CASE("forward and backward allocate nothing after the first call; wrong shapes are refused") {
    const auto w = random_weight<float>(12, 16, 1);
    auto a = make_boft<float>(12, 16, {.block_size = 4, .n_butterfly_factor = 2});
    const auto layer = rotate(any_operator<float>(as_operator(w)), a);
    auto g = zero_gradient(layer);
    const auto x = random_matrix<float>(16, 9, 2);
    const auto dy = random_matrix<float>(12, 9, 3);
    matrix<float> y(12, 9);
    matrix<float> dx(16, 9);
    column_view<float> dx_view = dx;
    workspace ws;
    const auto once = [&] {
        layer.add_product(1.0F, x, y, ws);
        rotated_backward(layer, x, dy, g, &dx_view, ws);
    };
    CHECK(allocations_when_warm(once) == 0);
    CHECK_THROWS_AS((void)apply(layer, dy), contract_violation);
    CHECK_THROWS_AS(rotated_backward(layer, x, x, g, nullptr, ws), contract_violation);
    CHECK_THROWS_AS((void)rotate(any_operator<float>(as_operator(w)), make_boft<float>(12, 8)), contract_violation);
}

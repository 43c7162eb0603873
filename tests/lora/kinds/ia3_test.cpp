// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/ia3.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<scaled_operator<float>>);

TEST_CASE("scales of inputs and outputs; gradients agree with finite differences") {
    const auto w = random_weight<double>(5, 7, 1);
    const any_operator<double> base = as_operator(w);
    vector<double> out = random_matrix<double>(5, 1, 2);
    vector<double> in = random_matrix<double>(7, 1, 3);
    const vector<double> bias = random_matrix<double>(5, 1, 4);
    const auto x = random_matrix<double>(7, 4, 5);
    const auto dy = random_matrix<double>(5, 4, 6);
    for (const bool use_out : {false, true}) {
        for (const bool use_in : {false, true}) {
            scaled_operator<double> map{.base = base};
            matrix<double> want = w;
            if (use_out) {
                map.output_scale = out;
                want = out.asDiagonal() * want;
            }
            if (use_in) {
                map.input_scale = in;
                want = want * in.asDiagonal();
            }
            CHECK(max_abs_diff(apply(map, x), want * x) < 1e-13);
            CHECK(max_abs_diff(apply_transposed(map, dy), want.transpose() * dy) < 1e-13);
        }
    }
    workspace ws;
    vector<double> g_out = vector<double>::Zero(5);
    output_scale_backward(base, bias, x, dy, g_out, ws);
    const auto loss_out = [&] {
        const matrix<double> y = out.asDiagonal() * ((w * x).colwise() + bias);
        return y.cwiseProduct(dy).sum();
    };
    CHECK(relative_diff(g_out, numeric_gradient(out, loss_out)) < 1e-7);
    vector<double> g_in = vector<double>::Zero(7);
    input_scale_backward(base, x, dy, g_in, ws);
    const auto loss_in = [&] { return matrix<double>(w * in.asDiagonal() * x).cwiseProduct(dy).sum(); };
    CHECK(relative_diff(g_in, numeric_gradient(in, loss_in)) < 1e-7);

    const scaled_operator<double> wrong{.base = base, .output_scale = in};
    CHECK_THROWS_AS((void)apply(wrong, x), contract_violation);
    CHECK_THROWS_AS(input_scale_backward(base, x, dy, g_out, ws), contract_violation);
}

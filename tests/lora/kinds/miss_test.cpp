// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/miss.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<miss_operator<float>>);
static_assert(factored_adapter<miss_adapter<float>>);

TEST_CASE("groups are summed and multiplied, as map, as factors and as PEFT writes it; gradients are right") {
    for (const lowrank::index in : {12, 14, 3}) {  // divisible by r, not, and shorter than r
        for (const lowrank::index mini : {0, 3}) {
            auto a = make_miss<double>(6, in, {.r = 4, .mini_r = mini});
            auto x = random_matrix<double>(in, 5, 1);
            CHECK(max_abs_diff(apply(a.map(), x), matrix<double>::Zero(6, 5)) == 0);
            a.miss_block = random_matrix<double>(4, a.miss_block.cols(), 2);
            matrix<double> want = matrix<double>::Zero(6, in);
            for (lowrank::index o = 0; o < 6; ++o) {
                for (lowrank::index j = 0; j < in; ++j) {
                    want(o, j) = a.miss_block(j % 4, o % a.miss_block.cols());
                }
            }
            const auto dy = random_matrix<double>(6, 5, 3);
            CHECK(max_abs_diff(a.delta().dense(), want) == 0);
            CHECK(max_abs_diff(apply(a.map(), x), want * x) < 1e-13);
            CHECK(max_abs_diff(apply_transposed(a.map(), dy), want.transpose() * dy) < 1e-13);

            const auto g = probe_gradient(a);
            const auto probe = [&] { return probe_loss(a); };
            CHECK(relative_diff(g.miss_block, numeric_gradient(a.miss_block, probe)) < 1e-7);

            auto direct = make_miss<double>(6, in, {.r = 4, .mini_r = mini});
            matrix<double> dx = matrix<double>::Zero(in, 5);
            column_view<double> dx_view = dx;
            workspace ws;
            a.backward(x, dy, direct, &dx_view, ws);
            const auto loss = [&] { return apply(a.map(), x).cwiseProduct(dy).sum(); };
            CHECK(relative_diff(direct.miss_block, numeric_gradient(a.miss_block, loss)) < 1e-7);
            CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);
        }
    }
    CHECK_THROWS_AS((void)make_miss<float>(6, 12, {.r = 4, .mini_r = 4}), contract_violation);
    CHECK_THROWS_AS((void)apply(make_miss<float>(6, 12).map(), random_matrix<float>(11, 2, 4)), contract_violation);
}

TEST_CASE("forward and backward allocate nothing after the first call") {
    auto a = make_miss<float>(32, 48, {.r = 8});
    a.miss_block = random_matrix<float>(8, 32, 20);
    const auto map = a.map();
    auto g = make_miss<float>(32, 48, {.r = 8});
    const auto x = random_matrix<float>(48, 9, 21);
    const auto dy = random_matrix<float>(32, 9, 22);
    matrix<float> y = matrix<float>::Zero(32, 9);
    matrix<float> dx = matrix<float>::Zero(48, 9);
    column_view<float> dx_view = dx;
    workspace ws;
    const auto once = [&] {
        map.add_product(1.0F, x, y, ws);
        a.backward(x, dy, g, &dx_view, ws);
    };
    CHECK(allocations_when_warm(once) == 0);
}

TEST_CASE("no group at all changes nothing, and ends") {
    const miss_operator<double> none{.left = matrix<double>(4, 0), .in = 6};
    CHECK(apply(none, random_matrix<double>(6, 2, 1)).isZero(0));
    CHECK(apply_transposed(none, random_matrix<double>(4, 2, 2)).isZero(0));
    const miss_adapter<double> empty{.miss_block = matrix<double>(0, 4), .out = 4, .in = 6};
    CHECK_THROWS_AS((void)empty.delta(), contract_violation);
}

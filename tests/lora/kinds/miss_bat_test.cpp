// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/miss_bat.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<miss_bat_operator<half>>);
static_assert(row_transform<miss_bat_rows>);

TEST_CASE("each block goes through its row's affine map; gradients agree with finite differences") {
    const auto w = random_weight<double>(6, 9, 1);
    auto a = make_miss_bat<double>(6, 9, {.r = 3});
    auto x = random_matrix<double>(9, 4, 2);
    CHECK(detail::all_zero(apply(miss_bat_operator<double>(w, a), x)));
    a.miss_block = random_matrix<double>(6, 3, 3);
    matrix<double> want(6, 9);
    for (lowrank::index o = 0; o < 6; o += 3) {
        for (lowrank::index i = 0; i < 9; i += 3) {
            const matrix<double> m = a.miss_block.middleRows(o, 3);
            want.block(o, i, 3, 3) = w.block(o, i, 3, 3) * m + m;
        }
    }
    const auto dy = random_matrix<double>(6, 4, 4);
    const miss_bat_operator<double> map(w, a);
    CHECK(max_abs_diff(apply(map, x), want * x) < 1e-12);
    CHECK(max_abs_diff(apply_transposed(map, dy), want.transpose() * dy) < 1e-12);

    auto g = make_miss_bat<double>(6, 9, {.r = 3});
    matrix<double> dx = matrix<double>::Zero(9, 4);
    column_view<double> dx_view = dx;
    workspace ws;
    map.backward(x, dy, g, &dx_view, ws);
    const auto loss = [&] { return apply(miss_bat_operator<double>(w, a), x).cwiseProduct(dy).sum(); };
    CHECK(relative_diff(g.miss_block, numeric_gradient(a.miss_block, loss)) < 1e-7);
    CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);
    const auto once = g.miss_block;
    map.backward(x, dy, g, nullptr, ws);
    CHECK(max_abs_diff(g.miss_block, 2 * once) < 1e-12);

    auto merged = w;
    const auto receipt = merge_transformed(weight_view<double>(merged), miss_bat_rows(a)).value();
    CHECK(max_abs_diff(merged, w + want) < 1e-13);
    CHECK(bool(unmerge_transformed(weight_view<double>(merged), receipt, miss_bat_rows(a))));
    CHECK(same_bits(merged, w));

    // I + M without an inverse.
    a.miss_block.topRows(3) = -matrix<double>::Identity(3, 3);
    const auto hard = merge_transformed(weight_view<double>(merged), miss_bat_rows(a)).value();
    CHECK(bool(unmerge_transformed(weight_view<double>(merged), hard, miss_bat_rows(a))));
    CHECK(same_bits(merged, w));

    CHECK_THROWS_AS((void)make_miss_bat<double>(6, 8, {.r = 3}), contract_violation);
    CHECK_THROWS_AS(miss_bat_operator<double>(w, make_miss_bat<double>(6, 12, {.r = 3})), contract_violation);
}

TEST_CASE("a 16-bit weight computes in float and comes back from a merge") {
    auto w = random_weight<bfloat16>(64, 48, 5, 0.05);
    const auto original = w;
    auto a = make_miss_bat<float>(64, 48, {.r = 16});
    a.miss_block = random_matrix<float>(64, 16, 6, 0.02F);
    const auto x = random_matrix<float>(48, 3, 7);
    const matrix<float> y = apply(original, x) + apply(miss_bat_operator<bfloat16>(original, a), x);
    const auto receipt = merge_transformed(weight_view<bfloat16>(w), miss_bat_rows(a)).value();
    CHECK(max_abs_diff(apply(w, x), y) < 0.02);
    CHECK(receipt.bits_per_weight() < 4);
    CHECK(bool(unmerge_transformed(weight_view<bfloat16>(w), receipt, miss_bat_rows(a))));
    CHECK(same_bits(w, original));
}

TEST_CASE("forward and backward allocate nothing after the first call") {
    const auto w = random_weight<bfloat16>(32, 48, 20);
    auto a = make_miss_bat<float>(32, 48, {.r = 8});
    a.miss_block = random_matrix<float>(32, 8, 23);
    const miss_bat_operator<bfloat16> map(w, a);
    auto g = make_miss_bat<float>(32, 48, {.r = 8});
    const auto x = random_matrix<float>(48, 9, 21);
    const auto dy = random_matrix<float>(32, 9, 22);
    matrix<float> y = matrix<float>::Zero(32, 9);
    matrix<float> dx = matrix<float>::Zero(48, 9);
    column_view<float> dx_view = dx;
    workspace ws;
    const auto once = [&] {
        map.add_product(1.0F, x, y, ws);
        map.backward(x, dy, g, &dx_view, ws);
    };
    CHECK(allocations_when_warm(once) == 0);
}

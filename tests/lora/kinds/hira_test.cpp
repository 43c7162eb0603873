// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/hira.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<hira_operator<half>>);
static_assert(row_transform<hira_rows>);

TEST_CASE("the change is W o (B A) without forming it; gradients agree with finite differences") {
    const auto w = random_weight<double>(19, 7, 1);  // more rows than a tile, not a multiple of one
    auto a = make_hira<double>(19, 7, {.r = 3});
    auto x = random_matrix<double>(7, 4, 2);
    const any_operator<double> base = as_operator(w);
    const operator_sum<double> fresh({{.map = base}, {.map = hira_operator<double>(w, a)}});
    CHECK(same_bits(apply(fresh, x), apply(base, x)));
    a.hira_B = random_matrix<double>(19, 3, 3);
    const matrix<double> want = w.cwiseProduct(row_matrix<double>(a.hira_B * a.hira_A));
    const auto dy = random_matrix<double>(19, 4, 4);
    const hira_operator<double> map(w, a);
    CHECK(max_abs_diff(apply(map, x), want * x) < 1e-12);
    CHECK(max_abs_diff(apply_transposed(map, dy), want.transpose() * dy) < 1e-12);

    hira_adapter<double> g{.hira_A = matrix<double>::Zero(3, 7), .hira_B = matrix<double>::Zero(19, 3)};
    matrix<double> dx = matrix<double>::Zero(7, 4);
    column_view<double> dx_view = dx;
    workspace ws;
    map.backward(x, dy, g, &dx_view, ws);
    const auto loss = [&] { return apply(hira_operator<double>(w, a), x).cwiseProduct(dy).sum(); };
    CHECK(relative_diff(g.hira_A, numeric_gradient(a.hira_A, loss)) < 1e-7);
    CHECK(relative_diff(g.hira_B, numeric_gradient(a.hira_B, loss)) < 1e-7);
    CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);
    const auto once = g.hira_A;
    map.backward(x, dy, g, nullptr, ws);
    CHECK(max_abs_diff(g.hira_A, 2 * once) < 1e-12);
    CHECK_THROWS_AS(hira_operator<double>(w, make_hira<double>(19, 8)), contract_violation);

    // Through products with the base alone: one column (all k at once) and many (one k at a time).
    for (const lowrank::index n : {1, 40}) {
        const auto xs = random_matrix<double>(7, n, 9);
        const auto dys = random_matrix<double>(19, n, 10);
        matrix<double> y = matrix<double>::Zero(19, n);
        add_hira_product(base, a, 2.0, xs, y, ws);
        CHECK(max_abs_diff(y, 2 * want * xs) < 1e-12);
        matrix<double> back = matrix<double>::Zero(7, n);
        add_hira_transposed_product(base, a, 1.0, dys, back, ws);
        CHECK(max_abs_diff(back, want.transpose() * dys) < 1e-12);
        hira_adapter<double> g1{.hira_A = matrix<double>::Zero(3, 7), .hira_B = matrix<double>::Zero(19, 3)};
        auto g2 = g1;
        matrix<double> dx1 = matrix<double>::Zero(7, n);
        matrix<double> dx2 = dx1;
        column_view<double> dx1_view = dx1;
        column_view<double> dx2_view = dx2;
        map.backward(xs, dys, g1, &dx1_view, ws);
        hira_backward(base, a, xs, dys, g2, &dx2_view, ws);
        CHECK(max_abs_diff(g1.hira_A, g2.hira_A) < 1e-11);
        CHECK(max_abs_diff(g1.hira_B, g2.hira_B) < 1e-11);
        CHECK(max_abs_diff(dx1, dx2) < 1e-11);
    }
}

TEST_CASE_TEMPLATE("merge multiplies every entry by its factor and unmerge gives the bits back", T, float, half) {
    auto w = random_weight<T>(40, 24, 5, 0.05);
    const auto original = w;
    hira_adapter<float> a{.hira_A = random_matrix<float>(2, 24, 6), .hira_B = random_matrix<float>(40, 2, 7)};
    a.hira_A.col(3).setZero();
    a.hira_A(0, 3) = -1;
    a.hira_B(5, 0) = 1;  // the factor of entry (5, 3) is zero
    const auto x = random_matrix<float>(24, 3, 8);
    const matrix<float> y = apply(original, x) + apply(hira_operator<T>(original, a), x);
    const auto receipt = merge_transformed(weight_view<T>(w), hira_rows(a)).value();
    CHECK(static_cast<float>(w(5, 3)) == 0);
    CHECK(max_abs_diff(apply(w, x), y) < (sizeof(T) == 2 ? 5e-3 : 1e-5));
    CHECK(bool(unmerge_transformed(weight_view<T>(w), receipt, hira_rows(a))));
    CHECK(same_bits(w, original));
}

TEST_CASE("forward and backward allocate nothing after the first call") {
    const auto w = random_weight<bfloat16>(32, 48, 20);
    auto a = make_hira<float>(32, 48, {.r = 8});
    a.hira_B = random_matrix<float>(32, 8, 23);
    const hira_operator<bfloat16> map(w, a);
    const auto base = as_operator(w);
    auto g = make_hira<float>(32, 48, {.r = 8});
    const auto x = random_matrix<float>(48, 9, 21);
    const auto dy = random_matrix<float>(32, 9, 22);
    matrix<float> y = matrix<float>::Zero(32, 9);
    matrix<float> dx = matrix<float>::Zero(48, 9);
    column_view<float> dx_view = dx;
    workspace ws;
    const auto once = [&] {
        map.add_product(1.0F, x, y, ws);
        map.backward(x, dy, g, &dx_view, ws);
        add_hira_product(base, a, 1.0F, x, y, ws);
        hira_backward(base, a, x, dy, g, &dx_view, ws);
    };
    CHECK(allocations_when_warm(once) == 0);
}

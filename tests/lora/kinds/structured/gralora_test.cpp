// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/structured/gralora.hpp>

#include "lora/some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("GraLoRA: every block of the grid is the low-rank product that the paper gives it") {
    for (const lowrank::index k : {1, 2, 4}) {
        for (const lowrank::index hybrid : {0, 3}) {
            CAPTURE(k);
            CAPTURE(hybrid);
            const lowrank::index r = 8;
            gralora_adapter<double> a{.gralora_A = random_matrix<double>(12, r, 1),
                                      .gralora_B = random_matrix<double>(k * r, 16 / k, 2),
                                      .k = k,
                                      .alpha = 22};
            matrix<double> want = matrix<double>::Zero(16, 12);
            const lowrank::index q = r / k;
            for (lowrank::index o = 0; o < k; ++o) {
                for (lowrank::index i = 0; i < k; ++i) {
                    const matrix<double> block = a.gralora_A.block(i * (12 / k), o * q, 12 / k, q) *
                                                 a.gralora_B.block(o * r + i * q, 0, q, 16 / k);
                    want.block(o * (16 / k), i * (12 / k), 16 / k, 12 / k) = block.transpose();
                }
            }
            if (hybrid != 0) {
                a.gralora_A_general = random_matrix<double>(hybrid, 12, 3);
                a.gralora_B_general = random_matrix<double>(16, hybrid, 4);
                want += a.gralora_B_general * a.gralora_A_general;
            }
            want *= 22.0 / static_cast<double>(r + hybrid);
            CHECK(max_abs_diff(a.delta().dense(), want) < 1e-12);
            matrix<double> rows = matrix<double>::Ones(12, 5);
            a.add_rows(-0.5, 9, rows);
            CHECK(max_abs_diff(rows, matrix<double>((1 - 0.5 * want.middleRows(9, 5).array()).transpose())) < 1e-12);
            const any_adapter<double> any = a;
            CHECK(any.parameter_count() == r * (12 + 16) + hybrid * (12 + 16));
            CHECK(relative_diff(adapted_weight(any, row_matrix<double>(row_matrix<double>::Zero(16, 12)), 1.0), want) <
                  1e-13);
        }
    }
}

TEST_CASE("GraLoRA drops inputs of both parts in training, and the way back drops the same") {
    const dropout_key key{.probability = 0.5, .seed = 3, .layer = 1, .step = 2};
    auto made = make_gralora<double>(12, 8, {.r = 4, .hybrid_r = 1, .dropout = 0.5});
    made.gralora_B = random_matrix<double>(8, 6, 1);
    made.gralora_B_general = random_matrix<double>(12, 1, 2);
    const any_adapter<double> a = made;
    CHECK(a.dropout() == 0.5);
    const row_matrix<double> w = random_weight<double>(12, 8, 1);
    auto x = random_matrix<double>(8, 70, 5);
    const auto dy = random_matrix<double>(12, 70, 6);
    workspace ws;
    const auto loss = [&] {
        matrix<double> y = matrix<double>::Zero(12, 70);
        a.add_product(as_operator(w), 1, x, y, ws, key);
        return y.cwiseProduct(dy).sum();
    };
    matrix<double> dx = matrix<double>::Zero(8, 70);
    column_view<double> dx_view = dx;
    auto g = a.zero_gradient();
    a.backward(as_operator(w), 1, x, dy, g, &dx_view, ws, key);
    CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-8);
    CHECK(dx.cwiseEqual(0).count() > 100);
}

TEST_CASE("GraLoRA: a k that does not divide, and factors that do not fit, are refused") {
    CHECK_THROWS_AS((void)make_gralora<float>(12, 8, {.r = 3}), contract_violation);
    CHECK_THROWS_AS((void)make_gralora<float>(12, 9, {.r = 4}), contract_violation);
    CHECK_THROWS_AS((void)make_gralora<float>(9, 8, {.r = 4}), contract_violation);
    auto a = make_gralora<float>(12, 8, {.r = 4, .hybrid_r = 2});
    CHECK(detail::all_zero(a.delta().dense()));
    a.gralora_B_general.resize(12, 1);
    CHECK_THROWS_AS(any_adapter<float>{a}, contract_violation);
}

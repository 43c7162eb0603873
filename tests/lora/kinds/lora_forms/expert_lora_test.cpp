// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/lora_forms/expert_lora.hpp>

#include <vector>

#include <lowrank/lora/merge/merge_change.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("experts lie slow in the rows of A and fast in the columns of B, and go back where they came from") {
    expert_lora<double> stack{.experts = 3,
                              .lora_A = random_matrix<double>(6, 5, 1),
                              .lora_B = random_matrix<double>(4, 6, 2),
                              .lora_alpha = 6};
    CHECK(stack.rank() == 2);
    std::vector<lora_adapter<double>> all;
    for (Eigen::Index e = 0; e < 3; ++e) {
        all.push_back(stack.expert(e));
        CHECK(all.back().scaling() == 3.0);
        CHECK(same_bits(all.back().lora_A, matrix<double>(stack.lora_A.middleRows(2 * e, 2))));
        for (Eigen::Index k = 0; k < 2; ++k) {
            CHECK(all.back().lora_B.col(k) == stack.lora_B.col(3 * k + e));
        }
    }
    const auto again = stack_experts<double>(all);
    CHECK(same_bits(again.lora_A, stack.lora_A));
    CHECK(same_bits(again.lora_B, stack.lora_B));
    stack.put_expert(1, all[2]);
    CHECK(same_bits(stack.expert(1).lora_B, all[2].lora_B));
    CHECK(same_bits(stack.expert(0).lora_A, all[0].lora_A));
}

TEST_CASE_TEMPLATE("a stack merges expert by expert in both layouts, and back to the same bits", T, float, half) {
    expert_lora<float> stack{
        .experts = 4, .lora_A = random_matrix<float>(12, 7, 1), .lora_B = random_matrix<float>(9, 12, 2)};
    for (const auto layout : {expert_layout::out_by_in, expert_layout::in_by_out}) {
        const bool turned = layout == expert_layout::in_by_out;
        const Eigen::Index height = turned ? 7 : 9, width = turned ? 9 : 7;
        const row_matrix<T> before = random_weight<T>(4 * height, width, 3, 0.5);
        row_matrix<T> after = before;
        const weight_change<float> change = stack.change(layout);
        const auto receipt = merge(weight_view<T>(after), change);
        REQUIRE(receipt.has_value());
        for (Eigen::Index e = 0; e < 4; ++e) {
            const auto lora = stack.expert(e);
            matrix<double> d =
                static_cast<double>(lora.scaling()) * lora.lora_B.cast<double>() * lora.lora_A.cast<double>();
            if (turned) {
                d.transposeInPlace();
            }
            for (Eigen::Index i = 0; i < height; ++i) {
                for (Eigen::Index j = 0; j < width; ++j) {
                    const double want = static_cast<double>(before(e * height + i, j)) + d(i, j);
                    CHECK(static_cast<double>(after(e * height + i, j)) ==
                          doctest::Approx(want).epsilon(sizeof(T) == 4 ? 1e-6 : 1e-3));
                }
            }
        }
        REQUIRE(unmerge(weight_view<T>(after), *receipt, change));
        CHECK(same_bits(after, before));
    }
}

TEST_CASE("a new stack changes nothing, and its experts start differently") {
    const auto stack = make_expert_lora<float>(3, 6, 5, {.r = 2, .seed = 4});
    CHECK(stack.lora_B.isZero(0));
    CHECK_FALSE(same_bits(stack.expert(0).lora_A, stack.expert(1).lora_A));
    CHECK(same_bits(stack.lora_A, make_expert_lora<float>(3, 6, 5, {.r = 2, .seed = 4}).lora_A));
}

// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/replacement.hpp>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("a head that was trained stands for the old one, as far as its strength says, and merges with a receipt") {
    const row_matrix<double> w = random_weight<double>(6, 5, 1, 0.4);
    const any_adapter<double> head = replacement_adapter<double>{.weight = random_matrix<double>(6, 5, 2)};
    const matrix<double> x = random_matrix<double>(5, 3, 3);
    const matrix<double> want = (0.75 * w + 0.25 * head.get<replacement_adapter<double>>()->weight) * x;
    matrix<double> y = matrix<double>::Zero(6, 3);
    workspace ws;
    head.add_product(as_operator(w), 0.25, x, y, ws);
    CHECK(relative_diff(y, want) < 1e-14);
    row_matrix<double> merged = w;
    const auto receipt = merge(weight_view<double>(merged), head, 0.25);
    REQUIRE(receipt.has_value());
    CHECK(relative_diff(matrix<double>(merged * x), want) < 1e-14);
    REQUIRE(unmerge(weight_view<double>(merged), *receipt, head, 0.25));
    CHECK(same_bits(merged, w));
}

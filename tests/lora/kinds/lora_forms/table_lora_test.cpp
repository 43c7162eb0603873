// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/lora_forms/table_lora.hpp>

#include <cstdint>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/layers/embedding.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("looked-up rows of the merged table are those of the table and its adapter") {
    const row_matrix<double> table = random_weight<double>(9, 4, 1, 0.4);
    const table_lora_adapter<double> a{
        .lora = {.lora_A = random_matrix<double>(2, 9, 2), .lora_B = random_matrix<double>(4, 2, 3), .lora_alpha = 6}};
    row_matrix<double> merged = table;
    const auto receipt = merge(weight_view<double>(merged), any_adapter<double>(a), 0.5);
    REQUIRE(receipt.has_value());
    const std::vector<std::int64_t> ids = {3, 8, 3, 0};
    matrix<double> want(4, 4);
    embedding_lookup<double>(table, ids, want);
    workspace ws;
    embedding_forward(a.lora, 0.5, ids, want, ws);
    matrix<double> got(4, 4);
    embedding_lookup<double>(merged, ids, got);
    CHECK(relative_diff(got, want) < 1e-14);
    REQUIRE(unmerge(weight_view<double>(merged), *receipt, any_adapter<double>(a), 0.5));
    CHECK(same_bits(merged, table));
}

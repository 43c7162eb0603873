// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/io/models/rope_rows.hpp>

#include <doctest/doctest.h>

#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/dora.hpp>

using namespace lowrank;

TEST_CASE("rows move from halves to pairs and back") {
    // Two heads of four rows: within a head rows 0 1 | 2 3 become 0 2 1 3.
    row_matrix<float> w(8, 1);
    w << 0, 1, 2, 3, 4, 5, 6, 7;
    row_matrix<float> expected(8, 1);
    expected << 0, 2, 1, 3, 4, 6, 5, 7;
    CHECK(rope_rows_to_gguf(w, 2) == expected);
    CHECK(rope_rows_to_hf(expected, 2) == w);
    CHECK(rope_rows_to_hf(rope_rows_to_gguf(w, 1), 1) == w);
    CHECK_THROWS_AS((void)rope_rows_to_gguf(w, 3), contract_violation);
    CHECK_THROWS_AS((void)rope_rows_to_gguf(w, 0), contract_violation);
}

TEST_CASE("a whole adapter gets the order of the rows of its weight") {
    row_matrix<float> w(8, 3);
    fill_normal(w, 1.0F, philox(1));
    auto dora = make_dora(w, {.r = 2, .seed = 2});
    fill_normal(dora.lora.lora_B, 1.0F, philox(3));
    dora.magnitude(1) = 5;
    any_adapter<float> a = dora;
    REQUIRE(a.permute_rows(rope_row_order(8, 2, true)));
    const auto* moved = a.get<dora_adapter<float>>();
    CHECK(moved->lora.lora_B == matrix<float>(rope_rows_to_gguf(dora.lora.lora_B, 2)));
    CHECK(moved->magnitude == vector<float>(rope_rows_to_gguf(dora.magnitude, 2)));
    REQUIRE(a.permute_rows(rope_row_order(8, 2, false)));
    CHECK(a.get<dora_adapter<float>>()->lora.lora_B == dora.lora.lora_B);
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/io/models/rope_rows.hpp>

#include <doctest/doctest.h>

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

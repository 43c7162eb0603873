// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/merge_types.hpp>

#include <doctest/doctest.h>

TEST_CASE("an adapter to merge counts whole, and a report of a weight starts empty") {
    const lowrank::adapter_to_merge one;
    CHECK(one.adapter == nullptr);
    CHECK(one.strength == 1.0);
    const lowrank::merged_weight weight;
    CHECK(weight.type == lowrank::dtype::f32);
    CHECK(weight.entries == 0);
    CHECK(weight.receipt_bits_per_weight == 0.0);
}

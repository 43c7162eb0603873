// SPDX-License-Identifier: MIT
#include <lowrank/io/models/expert_names.hpp>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("one expert's weight has its place in the fused stack") {
    const auto up = find_expert_part("model.layers.0.mlp.experts.17.up_proj");
    REQUIRE(up);
    CHECK(up->stack == "model.layers.0.mlp.experts.gate_up_proj");
    CHECK(up->expert == 17);
    CHECK((up->is_fused && up->is_up));
    const auto gate = find_expert_part("model.layers.0.block_sparse_moe.experts.3.w1");
    REQUIRE(gate);
    CHECK(gate->stack == "model.layers.0.block_sparse_moe.experts.gate_up_proj");
    CHECK((gate->is_fused && !gate->is_up));
    const auto down = find_expert_part("experts.0.w2");
    REQUIRE(down);
    CHECK(down->stack == "experts.down_proj");
    CHECK_FALSE(down->is_fused);
}

TEST_CASE("other paths are no experts") {
    for (const char* path : {"", "w1", ".w1", "0.w1", "a.w1", "a.0.w4", "a.-1.w1", "a.0x1.w1", "a.1e3.w1", "a..w1",
                             "a.9999999.w1", "model.layers.0.mlp.up_proj", "a.0.w1.weight"}) {
        CHECK_MESSAGE(!find_expert_part(path), path);
    }
}

// SPDX-License-Identifier: MIT
#include <lowrank/quant/formats/ggml_type.hpp>

#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

#include <lowrank/quant/formats/ggml_blocks.hpp>

using namespace lowrank;

TEST_CASE("types know their blocks, removed and unknown numbers have none") {
    CHECK(facts_of(ggml_type::q4_0).bytes == 18);
    CHECK(facts_of(ggml_type::q4_1).bytes == 20);
    CHECK(facts_of(ggml_type::q5_0).bytes == 22);
    CHECK(facts_of(ggml_type::q5_1).bytes == 24);
    CHECK(facts_of(ggml_type::q8_0).bytes == 34);
    CHECK(facts_of(ggml_type::q2_k).bytes == 84);
    CHECK(facts_of(ggml_type::q3_k).bytes == 110);
    CHECK(facts_of(ggml_type::q4_k).bytes == 144);
    CHECK(facts_of(ggml_type::q5_k).bytes == 176);
    CHECK(facts_of(ggml_type::q6_k).bytes == 210);
    CHECK(facts_of(ggml_type::q6_k).block == 256);
    CHECK(facts_of(ggml_type::bf16).name == "BF16");
    CHECK(facts_of(ggml_type::f64).bytes == 8);
    for (const std::int32_t none : {-1, 4, 5, 31, 32, 33, 36, 37, 38, 40, 255, std::numeric_limits<std::int32_t>::max(),
                                    std::numeric_limits<std::int32_t>::min()}) {
        CHECK(facts_of(static_cast<ggml_type>(none)).block == 0);
    }
    for (std::int32_t i = 0; i < 40; ++i) {
        if (is_decodable(static_cast<ggml_type>(i))) {
            CHECK(facts_of(static_cast<ggml_type>(i)).block != 0);
        }
    }
}

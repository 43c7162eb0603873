// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/module_order.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("modules in the order of their definition, as far as names tell it") {
    const std::vector<std::vector<std::string>> ordered = {
        {"l0", "l1", "l2", "l10"},
        {"model.embed_tokens", "model.layers.2.self_attn.q_proj", "model.layers.2.self_attn.k_proj",
         "model.layers.2.self_attn.v_proj", "model.layers.2.self_attn.o_proj", "model.layers.2.mlp.gate_proj",
         "model.layers.2.mlp.up_proj", "model.layers.2.mlp.down_proj", "model.layers.10.self_attn.q_proj", "lm_head"},
        {"transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_proj", "transformer.h.0.mlp.c_fc",
         "transformer.h.0.mlp.c_proj", "transformer.h.1.attn.c_attn"},
        {"a", "a.0", "a.0.1", "a.2"},
    };
    for (const auto& all : ordered) {
        for (std::size_t i = 0; i < all.size(); ++i) {
            for (std::size_t j = 0; j < all.size(); ++j) {
                CAPTURE(all[i]);
                CAPTURE(all[j]);
                const auto order = detail::compare_modules(all[i], all[j]);
                CHECK(order.less == (i < j));
                CHECK(order.is_known);
            }
        }
    }
    for (const auto& [a, b] :
         {std::pair("encoder.key", "encoder.query"), std::pair("l0", "m0"),
          std::pair("decoder.layers.0.q_proj", "decoder.layers.0.k_proj"), std::pair("l01", "l1")}) {
        CHECK_FALSE(detail::compare_modules(a, b).is_known);
        CHECK_FALSE(detail::compare_modules(b, a).is_known);
    }
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/models/architecture.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("names go both ways, others go nowhere") {
    const architecture& llama = **find_architecture("llama");
    for (const auto& [hf, gguf] : {std::pair{"model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"},
                                   {"model.layers.31.mlp.down_proj", "blk.31.ffn_down"},
                                   {"model.layers.7.self_attn.k_proj.bias", "blk.7.attn_k.bias"},
                                   {"model.layers.2.post_attention_layernorm.weight", "blk.2.ffn_norm.weight"},
                                   {"model.embed_tokens.weight", "token_embd.weight"},
                                   {"model.norm.weight", "output_norm.weight"},
                                   {"lm_head.weight", "output.weight"}}) {
        REQUIRE(find_module(llama, hf));
        CHECK(find_module(llama, hf)->gguf == std::vector<std::string>{gguf});
        REQUIRE(find_gguf_module(llama, gguf));
        CHECK(find_gguf_module(llama, gguf)->hf == hf);
    }
    for (const char* none :
         {"", "model.layers..mlp.up_proj", "model.layers.x.mlp.up_proj", "model.layers.0", "model.layers.0.mlp.up",
          "transformer.h.0.attn.c_attn", "model.layers.0mlp.up_proj", "mlp.up_proj", "model.layers.0.lm_head"}) {
        CHECK_FALSE(find_module(llama, none));
    }
    for (const char* none : {"blk.0.attn_qkv.weight", "blk.0.attn_q.bias.weight", "blk.0.attn_q.weight.bias"}) {
        CHECK_FALSE(find_gguf_module(llama, none));
    }
}

TEST_CASE("heads and rows of a module are those of the model") {
    const architecture& llama = **find_architecture("llama");
    const model_config config{.num_attention_heads = 8, .num_key_value_heads = 2};
    const auto heads = [&](const char* name) {
        const gguf_part& part = find_gguf_module(llama, name)->module->parts.front();
        return part.is_rotary ? heads_of(part, config) : 0;
    };
    CHECK(heads("blk.0.attn_q.weight") == 8);
    CHECK(heads("blk.0.attn_k.weight") == 2);
    CHECK(heads("blk.0.attn_v.weight") == 0);
    const auto& q = *find_module(llama, "model.layers.0.self_attn.q_proj")->module;
    CHECK(rows_of_parts(q, config, 32)->front() == 32);
    CHECK(rows_of_parts(q, config, 24).error().code == errc::mismatch);
}

TEST_CASE("an unknown architecture is refused with the list of known ones") {
    const auto unknown = find_architecture("gpt2");
    REQUIRE_FALSE(unknown);
    CHECK(unknown.error().code == errc::unsupported);
    CHECK(unknown.error().message.find("\"gpt2\", not \"llama\" or \"mistral\"") != std::string::npos);
    CHECK(find_gguf_architecture("gpt2").error().message.find("not \"llama\";") != std::string::npos);
    CHECK((*find_gguf_architecture("llama"))->name == "llama");
    CHECK_FALSE(find_architecture("llama", {}));
}

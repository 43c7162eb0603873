// SPDX-License-Identifier: MIT
#include <lowrank/io/models/llama_names.hpp>

#include <string>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("names go both ways, others go nowhere") {
    for (const auto& [hf, gguf] : {std::pair{"model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"},
                                   {"model.layers.31.mlp.down_proj", "blk.31.ffn_down"},
                                   {"model.layers.7.self_attn.k_proj.bias", "blk.7.attn_k.bias"},
                                   {"model.layers.2.post_attention_layernorm.weight", "blk.2.ffn_norm.weight"},
                                   {"model.embed_tokens.weight", "token_embd.weight"},
                                   {"model.norm.weight", "output_norm.weight"},
                                   {"lm_head.weight", "output.weight"}}) {
        CHECK(gguf_name(hf) == gguf);
        CHECK(hf_name(gguf) == hf);
    }
    for (const char* none : {"", "model.layers..mlp.up_proj", "model.layers.x.mlp.up_proj", "model.layers.0",
                             "model.layers.0.mlp.up", "transformer.h.0.attn.c_attn", "model.layers.0mlp.up_proj"}) {
        CHECK_FALSE(gguf_name(none));
    }
    for (const char* none : {"blk.0.attn_qkv.weight", "blk.0.attn_q.bias.weight", "blk.0.attn_q.weight.bias"}) {
        CHECK_FALSE(hf_name(none));
    }
}

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
    const llama_layout layout{.n_head = 8, .n_head_kv = 2};
    CHECK(rope_heads_of("blk.0.attn_q.weight", layout) == 8);
    CHECK(rope_heads_of("blk.0.attn_k.weight", layout) == 2);
    CHECK(rope_heads_of("blk.0.attn_v.weight", layout) == 0);
}

TEST_CASE("the configuration of a model says how many heads there are") {
    temporary_folder folder;
    const auto read = [&](const char* text) {
        REQUIRE(write_file(folder / "config.json", text));
        return read_llama_layout(folder / "config.json");
    };
    const auto full = read(R"({"num_attention_heads":8,"num_key_value_heads":2,"tie_word_embeddings":true})");
    REQUIRE(full);
    CHECK(full->n_head == 8);
    CHECK(full->n_head_kv == 2);
    CHECK(full->tied);
    CHECK(read(R"({"num_attention_heads":8})")->n_head_kv == 8);
    for (const char* bad : {"{}", "[]", "{", R"({"num_attention_heads":0})", R"({"num_attention_heads":-1})",
                            R"({"num_attention_heads":"8"})", R"({"num_attention_heads":8,"num_key_value_heads":2.5})",
                            R"({"num_attention_heads":99999999999})"}) {
        CHECK_MESSAGE(!read(bad), bad);
    }
    CHECK(read_llama_layout(folder / "absent").error().code == errc::not_found);
}

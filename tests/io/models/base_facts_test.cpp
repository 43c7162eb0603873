// SPDX-License-Identifier: MIT
#include <lowrank/io/models/base_facts.hpp>

#include <string>

#include <lowrank/io/containers/checkpoint.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::tensor_of_ones;

namespace {

base_facts facts(const temporary_folder& folder, const char* config, std::vector<tensor_to_write> tensors) {
    REQUIRE(write_safetensors(folder / "model.safetensors", std::move(tensors)));
    REQUIRE(write_file(folder / "config.json", std::string(config)));
    return facts_of_base(*checkpoint::open(folder.path()));
}

}  // namespace

TEST_CASE("the orientation of GPT-2's layers follows from the architecture or the shapes") {
    temporary_folder folder;
    const auto gpt2 = facts(folder, R"({"model_type": "gpt2"})", {tensor_of_ones("h.0.attn.c_proj.weight", {4, 4})});
    CHECK(gpt2.stores_in_by_out("h.0.attn.c_proj") == true);
    CHECK(gpt2.stores_in_by_out("lm_head") == false);
    const auto by_shape = facts(folder, "{}", {tensor_of_ones("h.0.attn.c_attn.weight", {4, 12})});
    CHECK(by_shape.stores_in_by_out("h.0.attn.c_proj") == true);
    const auto linear =
        facts(folder, R"({"model_type": "starcoder2"})", {tensor_of_ones("h.0.mlp.c_fc.weight", {16, 4})});
    CHECK(linear.stores_in_by_out("h.0.mlp.c_proj") == false);
    CHECK_FALSE(
        facts(folder, R"({"model_type": "llama"})", {tensor_of_ones("q.weight", {4, 4})}).stores_in_by_out("q"));
}

TEST_CASE("ties are what config.json says, else what the model usually does without a head of its own") {
    temporary_folder folder;
    const auto table = tensor_of_ones("model.embed_tokens.weight", {4, 2});
    const auto head = tensor_of_ones("lm_head.weight", {4, 2});
    CHECK(facts(folder, R"({"model_type": "llama", "tie_word_embeddings": true})", {table, head}).is_tied);
    CHECK_FALSE(facts(folder, R"({"model_type": "llama"})", {table}).is_tied);
    CHECK(facts(folder, R"({"model_type": "gemma2"})", {table}).is_tied);
    CHECK_FALSE(facts(folder, R"({"model_type": "gemma2"})", {table, head}).is_tied);
    CHECK(facts(folder, R"({"model_type": "x", "text_config": {"tie_word_embeddings": true}})", {table}).is_tied);
    CHECK_FALSE(facts(folder, "not JSON", {table}).is_tied);
}

TEST_CASE("tables and heads are known by their names") {
    for (const char* name :
         {"model.embed_tokens", "gpt_neox.embed_in", "shared", "text_model.embeddings.token_embedding",
          "embeddings.position_embedding", "bert.embeddings.token_type_embeddings", "transformer.wpe"}) {
        CHECK_MESSAGE(is_table_name(name), name);
    }
    CHECK_FALSE(is_word_table_name("transformer.wpe"));
    CHECK_FALSE(is_table_name("lm_head"));
    CHECK(is_head_name("gpt_neox.embed_out"));
    CHECK_FALSE(is_head_name("mlp.up_proj"));
}

TEST_CASE("quantized weights are known by what lies beside them") {
    temporary_folder folder;
    REQUIRE(write_safetensors(folder / "m", {tensor_of_ones("a.weight", {8, 1}), tensor_of_ones("a.weight.absmax", {1}),
                                             tensor_of_ones("b.qweight", {2, 2}), tensor_of_ones("b.g_idx", {2}),
                                             tensor_of_ones("c.weight", {2, 2}), tensor_of_ones("c.SCB", {2}),
                                             tensor_of_ones("d.weight", {2, 2}), tensor_of_ones("e.weight", {2, 2}),
                                             tensor_of_ones("e.weight_scale_inv", {1, 1})}));
    const auto base = checkpoint::open(folder / "m");
    CHECK(quantization_of(*base, "a") == "bitsandbytes 4-bit");
    CHECK(quantization_of(*base, "b") == "GPTQ");
    CHECK(quantization_of(*base, "c") == "bitsandbytes 8-bit");
    CHECK(quantization_of(*base, "d").empty());
    CHECK(quantization_of(*base, "e") == "F32 codes with scales");
}

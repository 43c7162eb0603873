// SPDX-License-Identifier: MIT
// Names of tensors as detail/peft_reader.hpp understands them.
#include <string>

#include <doctest/doctest.h>

#include <lowrank/io/peft/detail/peft_reader.hpp>

using namespace lowrank;

TEST_CASE("tensor names in all spellings seen in the wild are understood") {
    const auto lora = detail::find_type(peft_kinds(), "LORA");
    REQUIRE(lora);
    struct name {
        const char* text;
        const char* leaf;
        const char* module;
    };
    for (const name& n : {
             name{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "lora_A.weight",
                  "model.layers.0.self_attn.q_proj"},
             {"base_model.model.l0.lora_B.weight", "lora_B.weight", "l0"},
             {"base_model.model.l0.lora_A.default.weight", "lora_A.weight", "l0"},
             {"l0.lora_B.weight", "lora_B.weight", "l0"},
             {"base_model.model.l0.lora_B.bias", "lora_B.bias", "l0"},
             {"base_model.model.l0.lora_B.default.bias", "lora_B.bias", "l0"},
             {"base_model.model.emb.lora_embedding_A", "lora_embedding_A", "emb"},
             {"base_model.model.emb.lora_embedding_B.default", "lora_embedding_B", "emb"},
             {"base_model.model.emb.lora_embedding_A.weight", "lora_embedding_A", "emb"},
             {"base_model.model.l0.lora_magnitude_vector", "lora_magnitude_vector", "l0"},
             {"base_model.model.l0.lora_magnitude_vector.default.weight", "lora_magnitude_vector", "l0"},
             {"base_model.model.a.lora_A.b.lora_A.weight", "lora_A.weight", "a.lora_A.b"},
             {"base_model.model.classifier.weight", "", ""},
             {"base_model.model.l0.base_layer.bias", "", ""},
             {"base_model.model.l0.lora_A", "", ""},
             {"base_model.model.l0.lora_A.bias", "", ""},
             {"base_model.model.l0.lora_Ax.weight", "", ""},
             {"base_model.model.l0.lora_A.a.b.weight", "", ""},
             {"lora_A.weight", "lora_A.weight", ""},  // of no module
             {".lora_A.weight", "", ""},
             {"", "", ""},
         }) {
        const auto parsed = detail::parse_peft_name(n.text, lora->type).value_or(detail::peft_name{});
        CHECK_MESSAGE(parsed.leaf == n.leaf, n.text);
        CHECK_MESSAGE(parsed.module == n.module, n.text);
    }
    const auto vera = detail::find_type(peft_kinds(), "VERA");
    REQUIRE(vera);
    CHECK(detail::parse_peft_name("base_model.vera_A", vera->type)->module.empty());
    CHECK(detail::parse_peft_name("base_model.model.l.vera_lambda_b.default", vera->type)->module == "l");
}

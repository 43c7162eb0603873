// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/peft_names.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;
using detail::parse_peft_name;
using part = detail::peft_name::part;

TEST_CASE("tensor names in all spellings seen in the wild are understood") {
    struct name {
        const char* text;
        part what;
        const char* module;
    };
    for (const name& n : {
             name{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", part::lora_A,
                  "model.layers.0.self_attn.q_proj"},
             {"base_model.model.l0.lora_B.weight", part::lora_B, "l0"},
             {"base_model.model.l0.lora_A.default.weight", part::lora_A, "l0"},
             {"l0.lora_B.weight", part::lora_B, "l0"},
             {"base_model.model.l0.lora_B.bias", part::bias, "l0"},
             {"base_model.model.l0.lora_B.default.bias", part::bias, "l0"},
             {"base_model.model.emb.lora_embedding_A", part::embedding_A, "emb"},
             {"base_model.model.emb.lora_embedding_B.default", part::embedding_B, "emb"},
             {"base_model.model.emb.lora_embedding_A.weight", part::embedding_A, "emb"},
             {"base_model.model.l0.lora_magnitude_vector", part::magnitude, "l0"},
             {"base_model.model.l0.lora_magnitude_vector.default.weight", part::magnitude, "l0"},
             {"base_model.model.a.lora_A.b.lora_A.weight", part::lora_A, "a.lora_A.b"},
             {"base_model.model.classifier.weight", part::other, ""},
             {"base_model.model.l0.base_layer.bias", part::other, ""},
             {"base_model.model.l0.lora_A", part::other, ""},
             {"base_model.model.l0.lora_A.bias", part::other, ""},
             {"base_model.model.l0.lora_Ax.weight", part::other, ""},
             {"base_model.model.l0.lora_A.a.b.weight", part::other, ""},
             {"lora_A.weight", part::other, ""},
             {".lora_A.weight", part::other, ""},
             {"", part::other, ""},
         }) {
        const auto parsed = parse_peft_name(n.text);
        CHECK_MESSAGE(parsed.what == n.what, n.text);
        CHECK_MESSAGE(parsed.module == n.module, n.text);
    }
}

// SPDX-License-Identifier: MIT
// An architecture of the test alone, with fused and tied weights and keys of its own: it goes through the public
// conversions of models and adapters as a built-in one does.

#include <algorithm>
#include <string>
#include <vector>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/models/architecture.hpp>
#include <lowrank/io/models/gguf_model.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/io/models/rope_rows.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

/// One attention weight for q, k and v, keys as GPT-2 spells them.
std::vector<architecture> with_toy_architecture() {
    std::vector<architecture> all(known_architectures().begin(), known_architectures().end());
    all.push_back({.name = "toy",
                   .hf_class = "ToyForCausalLM",
                   .gguf = "toy",
                   .hf_layers = "transformer.h.",
                   .keys = {{"n_embd", "embedding_length", &model_config::hidden_size, nullptr, true},
                            {"n_head", "attention.head_count", &model_config::num_attention_heads, nullptr, true},
                            {"n_head_kv", "attention.head_count_kv", &model_config::num_key_value_heads},
                            {"eps", "attention.layer_norm_rms_epsilon", nullptr, &model_config::rms_norm_eps}},
                   .modules = {{"attn.qkv",
                                {{"attn_q", head_count::query, true},
                                 {"attn_k", head_count::key_value, true},
                                 {"attn_v", head_count::key_value}}},
                               {"mlp.up", {{"ffn_up"}}},
                               {"transformer.wte", {{"token_embd"}}, false, module_role::table},
                               {"head", {{"output"}}, false, module_role::output}}});
    return all;
}

constexpr const char* toy_config = R"({"model_type":"toy","n_embd":8,"n_head":2,"n_head_kv":1,"eps":0.5})";

row_matrix<float> counting(Eigen::Index rows, Eigen::Index cols) {
    row_matrix<float> m(rows, cols);
    for (Eigen::Index i = 0; i < m.size(); ++i) {
        m.data()[i] = static_cast<float>(i);
    }
    return m;
}

}  // namespace

TEST_CASE("a model of a toy architecture goes to GGUF, its fused weight in parts, and back") {
    const auto all = with_toy_architecture();
    temporary_folder folder;
    REQUIRE(write_file(folder / "config.json", toy_config));
    const row_matrix<float> qkv = counting(16, 8);  // 2 heads of q, one of k, one of v, of 4 rows each
    REQUIRE(write_safetensors(folder / "model.safetensors",
                              {tensor_of("transformer.h.0.attn.qkv.weight", qkv),
                               tensor_of("transformer.h.0.attn.qkv.bias", vector<float>(qkv.col(0))),
                               tensor_of("transformer.h.0.mlp.up.weight", counting(3, 8)),
                               tensor_of("transformer.wte.weight", counting(5, 8))},
                              {{"format", "pt"}}));
    CHECK(write_gguf_model(folder / "m.gguf", folder.path()).message.find("\"toy\", not \"llama\"") !=
          std::string::npos);
    const status why = write_gguf_model(folder / "m.gguf", folder.path(), {.architectures = all});
    REQUIRE_MESSAGE(why, why.message);
    auto gguf = gguf_file::open(folder / "m.gguf");
    REQUIRE(gguf);
    CHECK(*gguf->value("general.architecture")->as_string() == "toy");
    CHECK(gguf->value("toy.attention.head_count_kv")->as_count() == 1);
    CHECK(gguf->value("toy.attention.layer_norm_rms_epsilon")->as_f32() == 0.5F);
    CHECK(*gguf->matrix<float>("blk.0.attn_q.weight") == rope_rows_to_gguf(qkv.topRows(8), 2));
    CHECK(*gguf->matrix<float>("blk.0.attn_k.weight") == rope_rows_to_gguf(qkv.middleRows(8, 4), 1));
    CHECK(*gguf->matrix<float>("blk.0.attn_v.weight") == qkv.bottomRows(4));
    CHECK(gguf->find("blk.0.attn_k.bias")->ne == std::vector<std::uint64_t>{4});
    CHECK(write_hf_model(folder / "hf", *gguf).error().message.find("\"toy\", not \"llama\"") != std::string::npos);
    const auto report = write_hf_model(folder / "hf", *gguf, {.architectures = all});
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    CHECK(report->copied == 4);
    CHECK(text_of(folder / "hf" / "model.safetensors") == text_of(folder / "model.safetensors"));
    CHECK(text_of(folder / "hf" / "config.json") == toy_config);

    // Of another tool: without our copy of config.json, and with a part missing.
    const auto write_again = [&](const char* without) {
        auto entries = gguf->entries();
        std::erase_if(entries, [](const gguf_entry& e) { return e.key.starts_with("lowrank."); });
        std::vector<gguf_tensor_to_write> tensors;
        for (const gguf_tensor& t : gguf->tensors()) {
            if (t.name != without) {
                tensors.push_back({.name = t.name, .type = t.type, .ne = t.ne, .bytes = gguf->bytes(t)});
            }
        }
        REQUIRE(write_gguf(folder / "other.gguf", entries, tensors));
        return write_hf_model(folder / "hf", *gguf_file::open(folder / "other.gguf"), {.architectures = all});
    };
    REQUIRE(write_again(""));
    const auto config = read_model_config(folder / "hf" / "config.json", all);
    REQUIRE_MESSAGE(config, (config ? std::string() : config.error().message));
    CHECK(config->num_key_value_heads == 1);
    CHECK(config->tie_word_embeddings);
    const auto missing = write_again("blk.0.attn_k.weight");
    REQUIRE_FALSE(missing);
    CHECK(missing.error().message.find("attn_k.weight\" is missing") != std::string::npos);
}

TEST_CASE("an adapter of a toy architecture goes to GGUF, fused module in parts, and back") {
    const auto all = with_toy_architecture();
    const auto config = parse_model_config(toy_config, all);
    REQUIRE(config);
    temporary_folder folder;
    peft_adapter adapter;
    auto lora = make_lora<float>(16, 8, {.r = 2});
    lora.lora_B = counting(16, 2);
    adapter.modules["transformer.h.1.attn.qkv"] = lora;
    adapter.config.lora_alpha = lora.lora_alpha;
    CHECK(write_gguf_lora(folder / "a.gguf", adapter, *config).code == errc::unsupported);
    REQUIRE(write_gguf_lora(folder / "a.gguf", adapter, *config, {}, all));
    auto read = read_gguf_lora(folder / "a.gguf");
    REQUIRE(read);
    CHECK(read->architecture == "toy");
    CHECK(read->tensors.size() == 3);
    const auto back = peft_from_gguf(*read, *config, all);
    REQUIRE_MESSAGE(back, (back ? std::string() : back.error().message));
    CHECK(lora_of(back->modules.at("transformer.h.1.attn.qkv")).lora_A == lora.lora_A);
    CHECK(lora_of(back->modules.at("transformer.h.1.attn.qkv")).lora_B == lora.lora_B);
    read->tensors.at("blk.1.attn_v.weight").lora_A *= 2;
    CHECK(peft_from_gguf(*read, *config, all).error().message.find("must share lora_a") != std::string::npos);
    adapter.modules["head"] = make_lora<float>(5, 8, {.r = 2});
    auto tied = *config;
    tied.tie_word_embeddings = true;
    CHECK(write_gguf_lora(folder / "a.gguf", adapter, tied, {}, all).message.find("is tied") != std::string::npos);
}

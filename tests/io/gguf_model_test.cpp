// SPDX-License-Identifier: MIT
#include <lowrank/io/gguf_model.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

TEST_CASE("a model goes to GGUF and back without a changed byte, and GGUF holds what llama.cpp's converter writes") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto home = shared / "models" / "stories260K";
    temporary_folder folder;
    std::vector<std::string> seen;
    const status why =
        write_gguf_model(folder / "m.gguf", home, {.name = "stories", .on_progress = [&](const progress& p) {
                                                       seen.emplace_back(p.what);
                                                       return true;
                                                   }});
    REQUIRE_MESSAGE(why, why.message);
    CHECK(seen.size() == 47);
    const auto ours = gguf_file::open(folder / "m.gguf");
    const auto theirs = gguf_file::open(shared / "models" / "gguf" / "stories260K-f32.gguf");
    REQUIRE(ours);
    REQUIRE(theirs);
    REQUIRE(ours->tensors().size() == theirs->tensors().size());
    for (const gguf_tensor& t : theirs->tensors()) {
        const gguf_tensor* mine = ours->find(t.name);
        REQUIRE_MESSAGE(mine != nullptr, t.name);
        CHECK(mine->ne == t.ne);
        CHECK_MESSAGE(std::ranges::equal(ours->bytes(*mine), theirs->bytes(t)), t.name);
    }
    for (const gguf_entry& e : theirs->entries()) {
        if (e.key.starts_with("llama.")) {
            REQUIRE_MESSAGE(ours->value(e.key) != nullptr, e.key);
            CHECK_MESSAGE(*ours->value(e.key) == e.value, e.key);
        }
    }
    const auto report = write_hf_model(folder / "hf", *ours);
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    CHECK(report->copied == 47);
    CHECK(report->decoded.empty());
    CHECK(text_of(folder / "hf" / "model.safetensors") == text_of(home / "model.safetensors"));
    CHECK(text_of(folder / "hf" / "config.json") == text_of(home / "config.json"));
}

TEST_CASE("a GGUF of another tool becomes a folder, quantized tensors are decoded") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    const auto plain = gguf_file::open(shared / "models" / "gguf" / "stories260K-f32.gguf");
    REQUIRE(plain);
    REQUIRE(write_hf_model(folder / "f32", *plain));
    const auto original = shared / "models" / "stories260K";
    CHECK(text_of(folder / "f32" / "model.safetensors") == text_of(original / "model.safetensors"));
    const auto made = nlohmann::json::parse(text_of(folder / "f32" / "config.json"));
    const auto real = nlohmann::json::parse(text_of(original / "config.json"));
    for (const char* key :
         {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
          "head_dim", "vocab_size", "max_position_embeddings", "tie_word_embeddings", "model_type"}) {
        CHECK_MESSAGE(made[key] == real[key], key);
    }
    const auto quantized = gguf_file::open(shared / "models" / "gguf" / "stories260K-Q8_0.gguf");
    REQUIRE(quantized);
    const auto report = write_hf_model(folder / "q8", *quantized);
    REQUIRE(report);
    CHECK_FALSE(report->decoded.empty());
    const auto a = checkpoint::open(folder / "q8");
    const auto b = checkpoint::open(original);
    REQUIRE(a);
    REQUIRE(b);
    const std::string name = "model.layers.1.self_attn.q_proj.weight";
    const row_matrix<float> w = *b->matrix<float>(name);
    CHECK((*a->matrix<float>(name) - w).norm() < 0.02F * w.norm());
    CHECK((*a->matrix<float>(name) - w).norm() > 0);
}

TEST_CASE("what is no Llama model is refused by name") {
    temporary_folder folder;
    REQUIRE(write_safetensors(folder / "model.safetensors", {}));
    REQUIRE(write_file(folder / "config.json", R"({"model_type":"gpt2"})"));
    CHECK(write_gguf_model(folder / "m.gguf", folder.path()).message.find("not \"llama\"") != std::string::npos);
    REQUIRE(write_file(folder / "config.json",
                       R"({"model_type":"llama","num_attention_heads":2,"rope_scaling":{"factor":2}})"));
    CHECK(write_gguf_model(folder / "m.gguf", folder.path()).message.find("rope_scaling") != std::string::npos);
    const row_matrix<float> w = row_matrix<float>::Ones(6, 4);
    REQUIRE(write_file(folder / "config.json", R"({"model_type":"llama","num_attention_heads":2})"));
    REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("transformer.wte.weight", w)}));
    CHECK(write_gguf_model(folder / "m.gguf", folder.path()).message.find("wte") != std::string::npos);
    REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("model.layers.0.self_attn.q_proj.weight", w)}));
    CHECK(write_gguf_model(folder / "m.gguf", folder.path()).code == errc::mismatch);  // 6 rows, 2 heads
    CHECK_FALSE(std::filesystem::exists(folder / "m.gguf"));
    REQUIRE(write_gguf(folder / "x.gguf", {{"general.architecture", gguf_value::of("gpt2")}}, {}));
    CHECK(write_hf_model(folder / "hf", *gguf_file::open(folder / "x.gguf")).error().code == errc::unsupported);
    REQUIRE(write_gguf(folder / "x.gguf", {{"general.architecture", gguf_value::of("llama")}}, {}));
    CHECK(write_hf_model(folder / "hf", *gguf_file::open(folder / "x.gguf")).error().code == errc::invalid_format);
}

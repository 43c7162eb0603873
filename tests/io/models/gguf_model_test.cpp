// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/models/gguf_model.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
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

TEST_CASE("a large model becomes several files, and a killed conversion goes on with the next of them") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    const auto model = gguf_file::open(shared / "models" / "gguf" / "stories260K-Q8_0.gguf");
    REQUIRE(model);
    const hf_model_options how{.file_bytes = 300000};
    const auto whole = write_hf_model(folder / "whole", *model, how);
    REQUIRE_MESSAGE(whole, (whole ? std::string() : whole.error().message));
    REQUIRE(write_hf_model(folder / "one", *model));
    const auto many = checkpoint::open(folder / "whole");
    const auto one = checkpoint::open(folder / "one");
    REQUIRE(many);
    REQUIRE(one);
    REQUIRE(many->shards().size() == 3);
    CHECK(many->shards()[2].path.filename() == "model-00003-of-00003.safetensors");
    for (const auto& shard : many->shards()) {
        CHECK(shard.file.tensors().back().end <= how.file_bytes);
    }
    REQUIRE(many->tensors().size() == one->tensors().size());
    for (const checkpoint::place& p : one->tensors()) {
        CHECK_MESSAGE(std::ranges::equal(one->bytes(p), *many->bytes(p.info->name)), p.info->name);
    }
    Eigen::Index most = 0;
    std::uint64_t room = 1000;
    for (bool killed = true; killed; room += 190000) {
        auto resumed = how;
        resumed.resume = true;
        killed = lowrank_tests::killed_after(room, [&](lowrank_tests::killing_disk& disk) {
            resumed.write.calls = &disk;
            return write_hf_model(folder / "out", *model, resumed).has_value();
        });
        resumed.write.calls = nullptr;
        if (killed) {
            auto other = resumed;
            other.file_bytes += 1;
            CHECK(write_hf_model(folder / "out", *model, other).error().code == errc::mismatch);
        }
        const auto again = write_hf_model(folder / "out", *model, resumed);
        REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
        CHECK(again->copied == whole->copied);
        CHECK(again->decoded.size() == whole->decoded.size());
        most = std::max(most, killed ? again->kept_files : 0);
        std::size_t files = 0;
        for (const auto& entry : std::filesystem::directory_iterator(folder / "out")) {
            CHECK(text_of(entry.path()) == text_of(folder / "whole" / entry.path().filename().string()));
            ++files;
        }
        CHECK(files == 5);
        std::filesystem::remove_all(folder / "out");
    }
    CHECK(most >= 2);
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
    // A name whose translation is that of another.
    std::vector<gguf_entry> entries = {{"general.architecture", gguf_value::of("llama")}};
    for (const char* key : {"attention.head_count", "embedding_length", "feed_forward_length", "block_count"}) {
        entries.push_back({"llama." + std::string(key), gguf_value::of(2U)});
    }
    REQUIRE(write_gguf(folder / "x.gguf", entries, {gguf_tensor_of("blk.0.attn_q.bias.weight", w)}));
    const auto refused = write_hf_model(folder / "hf", *gguf_file::open(folder / "x.gguf"));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("attn_q.bias.weight") != std::string::npos);
}

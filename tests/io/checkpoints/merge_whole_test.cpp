// SPDX-License-Identifier: MIT
// What an adapter saves whole: vllm #4186, #32599 (base_layer beside LoRA), axolotl #1510 (other float type), #2277
// (vocabularies), trl #297 (new heads), peft #2018 and transformers #45127 (ties).
#include <lowrank/io/checkpoints/detail/merge_whole.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/io/checkpoints/merge_checkpoint.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::tensor_of_ones;

namespace {

row_matrix<float> random(lowrank::index rows, lowrank::index cols, std::uint64_t seed) {
    row_matrix<float> m(rows, cols);
    for (lowrank::index i = 0; i < m.size(); ++i) {
        m.data()[i] = static_cast<float>(
            static_cast<double>((seed * 7919 + static_cast<std::uint64_t>(i) * 104729) % 1000) / 500.0 - 1.0);
    }
    return m;
}

/// A base in F32 or BF16 with a table and a head, and an adapter with LoRA on the head and whatever else is asked for.
struct trial {
    temporary_folder folder;
    row_matrix<float> table = random(6, 4, 1);
    row_matrix<float> head = random(6, 4, 2);
    row_matrix<float> other = random(6, 4, 3);
    peft_adapter adapter;

    explicit trial(const char* config = "{}") {
        std::filesystem::create_directories(folder / "base");
        REQUIRE(write_file(folder / "base/config.json", std::string(config)));
        write_base<float>(true);
    }
    template <class T>
    void write_base(bool has_head) {
        std::vector<tensor_to_write> all{tensor_of("model.embed_tokens.weight", row_matrix<T>(table.cast<T>()))};
        if (has_head) {
            all.push_back(tensor_of("lm_head.weight", row_matrix<T>(head.cast<T>())));
        }
        REQUIRE(write_safetensors(folder / "base/model.safetensors", std::move(all)));
    }
    /// Lets the adapter save a tensor whole, beside nothing else that it saves so.
    void save_only(tensor_to_write tensor) {
        std::erase_if(adapter.modules, [](const auto& m) { return stored_tensor(m.second) != nullptr; });
        save(adapter, std::move(tensor));
    }
    static void save(peft_adapter& to, tensor_to_write tensor) {
        const std::string path(detail::without_prefix(tensor.name));
        to.modules.insert_or_assign(path, whole_tensor{std::move(tensor)});
    }
    matrix<double> add_lora(const char* module = "lm_head") {
        auto lora = make_lora<float>(6, 4, {.r = 2, .lora_alpha = 4});
        lora.lora_A = random(2, 4, 5);
        lora.lora_B = random(6, 2, 6);
        adapter.modules[module] = lora;
        return 2.0 * lora.lora_B.cast<double>() * lora.lora_A.cast<double>();
    }
    result<merge_checkpoint_report> merge(double strength = 1) {
        const auto base = checkpoint::open(folder / "base");
        REQUIRE(base);
        return merge_checkpoint(*base, adapter, folder / "out", {.strength = strength});
    }
    row_matrix<double> merged(const char* name) { return *checkpoint::open(folder / "out")->matrix<double>(name); }
    std::string refusal() {
        const auto report = merge();
        REQUIRE_FALSE(report);
        return report.error().message;
    }
};

bool says(const std::vector<std::string>& notes, std::string_view text) {
    return std::any_of(notes.begin(), notes.end(), [&](const auto& n) { return n.find(text) != std::string::npos; });
}

}  // namespace

TEST_CASE("a base_layer beside LoRA is what the LoRA changes, at any strength") {
    trial t;
    const matrix<double> delta = t.add_lora();
    t.save_only(tensor_of("base_model.model.lm_head.base_layer.weight", t.other));
    const row_matrix<double> w = t.head.cast<double>();
    const row_matrix<double> r = t.other.cast<double>();
    for (const double s : {1.0, 0.25, -1.0}) {
        const auto report = t.merge(s);
        REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
        CHECK((t.merged("lm_head.weight") - (w + s * (r - w) + s * delta)).cwiseAbs().maxCoeff() < 1e-6);
        CHECK(report->replaced == std::vector<std::string>{"lm_head.weight"});
        std::filesystem::remove_all(t.folder / "out");
    }
}

TEST_CASE("DoRA on a replaced weight has the lengths of the new one") {
    trial t;
    const matrix<double> delta = t.add_lora();
    const vector<float> magnitude = vector<float>::LinSpaced(6, 0.5F, 2);
    t.adapter.modules["lm_head"] = peft_lora{.lora = lora_of(t.adapter.modules.at("lm_head")), .magnitude = magnitude};
    t.save_only(tensor_of("lm_head.base_layer.weight", t.other));
    REQUIRE(t.merge());
    matrix<double> v = t.other.cast<double>() + delta;
    for (lowrank::index i = 0; i < 6; ++i) {
        v.row(i) *= static_cast<double>(magnitude(i)) / v.row(i).norm();
    }
    CHECK((t.merged("lm_head.weight") - v).cwiseAbs().maxCoeff() < 1e-5);
    CHECK(t.merge(0.5).error().message.find("order would matter") != std::string::npos);
}

TEST_CASE("one adapter replaces and another changes: both count") {
    trial t;
    const matrix<double> delta = t.add_lora();
    peft_adapter saved;
    trial::save(saved, tensor_of("base_model.model.lm_head.weight", t.other));
    const auto base = checkpoint::open(t.folder / "base");
    for (const bool first : {true, false}) {
        const adapter_to_merge both[] = {{first ? &t.adapter : &saved, first ? 0.5 : 1.0},
                                         {first ? &saved : &t.adapter, first ? 1.0 : 0.5}};
        REQUIRE(merge_checkpoint(*base, both, t.folder / "out"));
        CHECK((t.merged("lm_head.weight") - (t.other.cast<double>() + 0.5 * delta)).cwiseAbs().maxCoeff() < 1e-6);
    }
    const adapter_to_merge twice[] = {{&saved, 1}, {&saved, 1}};
    CHECK(merge_checkpoint(*base, twice, t.folder / "out").error().message.find("two adapters replace") !=
          std::string::npos);
}

TEST_CASE("what is saved whole is rounded once to the type of the base, and the strength reaches it") {
    trial t;
    t.write_base<bfloat16>(true);
    t.save_only(tensor_of("base_model.model.lm_head.weight", t.other));
    const auto report = t.merge();
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    CHECK(t.merged("lm_head.weight") == row_matrix<double>(t.other.cast<bfloat16>().cast<double>()));
    CHECK(checkpoint::open(t.folder / "out")->find("lm_head.weight")->type == dtype::bf16);
    CHECK(says(report->notes, "F32 is rounded to the BF16"));
    t.write_base<float>(true);
    REQUIRE(t.merge(0.5));
    CHECK((t.merged("lm_head.weight") - row_matrix<double>(0.5 * (t.head + t.other).cast<double>()))
              .cwiseAbs()
              .maxCoeff() < 1e-6);
}

TEST_CASE("a new tensor is written if modules_to_save names it, and refused otherwise") {
    trial t;
    t.add_lora();
    t.save_only(tensor_of_ones("base_model.model.score.weight", {3, 4}));
    CHECK(t.refusal().find("which has none of that name; the nearest name there is") != std::string::npos);
    t.adapter.config.modules_to_save = {"classifier", "score"};
    const auto report = t.merge();
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    CHECK(report->added == std::vector<std::string>{"score.weight"});
    CHECK(says(report->notes, "\"score.weight\" is new"));
    CHECK(t.merged("score.weight").sum() == 12);
    // Of several files the index lists it.
    REQUIRE(write_safetensors(t.folder / "base/a.safetensors", {tensor_of("model.embed_tokens.weight", t.table)}));
    REQUIRE(write_safetensors(t.folder / "base/b.safetensors", {tensor_of("lm_head.weight", t.head)}));
    std::filesystem::remove(t.folder / "base/model.safetensors");
    std::filesystem::remove_all(t.folder / "out");
    REQUIRE(write_file(t.folder / "base/model.safetensors.index.json",
                       std::string(R"({"weight_map": {"model.embed_tokens.weight": "a.safetensors",
                                                      "lm_head.weight": "b.safetensors"}})")));
    REQUIRE(t.merge());
    CHECK(t.merged("score.weight").sum() == 12);
}

TEST_CASE("tables of another vocabulary are refused with both sizes") {
    for (const lowrank::index rows : {5, 7}) {
        trial t;
        t.save_only(tensor_of("base_model.model.model.embed_tokens.weight", random(rows, 4, 9)));
        const std::string why = t.refusal();
        CHECK_MESSAGE(why.find("[" + std::to_string(rows) + ", 4]") != std::string::npos, why);
        CHECK_MESSAGE(why.find("[6, 4]") != std::string::npos, why);
        CHECK_MESSAGE(why.find("resize_token_embeddings") != std::string::npos, why);
    }
}

TEST_CASE("a tied table takes no change of one of its uses") {
    constexpr const char* tied = R"({"model_type": "llama", "tie_word_embeddings": true})";
    {
        trial t(tied);
        t.add_lora();
        CHECK(t.refusal().find("tie_word_embeddings") != std::string::npos);
        t.write_base<float>(false);
        CHECK(t.refusal().find("tie_word_embeddings") != std::string::npos);
    }
    trial t(tied);
    t.write_base<float>(false);
    auto lora = make_lora<float>(4, 6, {.r = 2, .lora_alpha = 2});
    lora.lora_B.setOnes();
    t.adapter.modules["model.embed_tokens"] = plain_module(lora, true);
    CHECK(t.refusal().find("one of the two uses") != std::string::npos);
    t.adapter.config.document = R"({"ensure_weight_tying": true})";
    CHECK(t.merge());
    t.adapter.modules.clear();
    t.adapter.config.document = {};
    t.save_only(tensor_of("model.embed_tokens.weight", t.other));
    trial::save(t.adapter, tensor_of("lm_head.weight", t.head));
    CHECK(t.refusal().find("another one than its table") != std::string::npos);
    trial::save(t.adapter, tensor_of("lm_head.weight", t.other));
    REQUIRE(t.merge());
    CHECK(t.merged("model.embed_tokens.weight") == row_matrix<double>(t.other.cast<double>()));
    t.save_only(tensor_of("model.embed_tokens.weight", t.other));
    CHECK(t.refusal().find("one of the two uses") != std::string::npos);
}

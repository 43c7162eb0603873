// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/gguf_lora.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/io/peft.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

const model_config small{.num_attention_heads = 2, .num_key_value_heads = 1, .tie_word_embeddings = true};

lora_adapter<float> adapter_of(Eigen::Index out, Eigen::Index in, Eigen::Index r, double alpha, bool rslora = false) {
    auto a = make_lora<float>(out, in, {.r = r, .lora_alpha = alpha, .use_rslora = rslora, .seed = 3});
    for (Eigen::Index i = 0; i < a.lora_B.size(); ++i) {
        a.lora_B.data()[i] = static_cast<float>(i % 7) - 2.5F;
    }
    return a;
}

/// Entries of a good adapter, with one replaced or added.
std::vector<gguf_entry> entries(const std::string& key = {}, const gguf_value& value = {}) {
    std::vector<gguf_entry> out = {{"general.architecture", gguf_value::of("llama")},
                                   {"general.type", gguf_value::of("adapter")},
                                   {"adapter.type", gguf_value::of("lora")},
                                   {"adapter.lora.alpha", gguf_value::of(4.0F)}};
    if (!key.empty()) {
        std::erase_if(out, [&](const gguf_entry& e) { return e.key == key; });
        out.push_back({key, value});
    }
    return out;
}

gguf_tensor_to_write ones(const std::string& name, Eigen::Index rows, Eigen::Index cols, float value = 1) {
    return gguf_tensor_of(name, row_matrix<float>(row_matrix<float>::Constant(rows, cols, value)));
}

}  // namespace

TEST_CASE("exported adapters are the bytes llama.cpp was tested with") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    const auto home = shared / "adapters" / "stories260K";
    const auto layout = read_model_config(shared / "models" / "stories260K" / "config.json");
    const auto base = gguf_file::open(shared / "models" / "gguf" / "stories260K-f32.gguf");
    REQUIRE(layout);
    REQUIRE(base);
    struct example {
        const char* peft;
        ggml_type type;
        const char* gguf;
    };
    for (const example& e : {example{"shakespeare-lora-r4", ggml_type::f32, "shakespeare-lora-r4-f32.gguf"},
                             {"shakespeare-lora-r4", ggml_type::f16, "shakespeare-lora-r4-f16.gguf"},
                             {"random-r4", ggml_type::f32, "random-r4-f32.gguf"}}) {
        const auto adapter = read_peft(home / e.peft);
        REQUIRE(adapter);
        REQUIRE(write_gguf_lora(folder / "a.gguf", *adapter, *layout, {.type = e.type, .name = e.peft}));
        CHECK_MESSAGE(text_of(folder / "a.gguf") == text_of(home / "gguf" / e.gguf), e.gguf);
        const auto read = read_gguf_lora(folder / "a.gguf");
        REQUIRE(read);
        CHECK(check_gguf_base(*read, *base));
        if (e.type == ggml_type::f32) {  // and back without a changed bit
            const auto again = peft_from_gguf(*read, *layout);
            REQUIRE(again);
            REQUIRE(again->modules.size() == adapter->modules.size());
            for (const auto& [module, held] : adapter->modules) {
                const auto& lora = lora_of(held);
                CHECK(lora_of(again->modules.at(module)).lora_A == lora.lora_A);
                CHECK(lora_of(again->modules.at(module)).lora_B == lora.lora_B);
                CHECK(lora_of(again->modules.at(module)).scaling() == lora.scaling());
            }
        }
    }
    // The converter of llama.cpp gives the same tensors under more keys; the negative control forgets the permutation.
    const auto ours = read_gguf_lora(home / "gguf" / "shakespeare-lora-r4-f32.gguf");
    const auto upstream = read_gguf_lora(home / "gguf" / "upstream-shakespeare-lora-r4.gguf");
    const auto wrong = read_gguf_lora(home / "gguf" / "NEGATIVE-CONTROL-no-permute.gguf");
    REQUIRE(ours);
    REQUIRE(upstream);
    REQUIRE(wrong);
    for (const auto& [tensor, lora] : ours->tensors) {
        CHECK(upstream->tensors.at(tensor).lora_B == lora.lora_B);
        const bool permuted = find_gguf_module(**find_architecture("llama"), tensor)->module->parts.front().is_rotary;
        CHECK((wrong->tensors.at(tensor).lora_B == lora.lora_B) != permuted);
    }
}

TEST_CASE("scalings that GGUF cannot say are multiplied into lora_b") {
    temporary_folder folder;
    peft_adapter adapter;
    adapter.modules["model.layers.0.self_attn.q_proj"] = adapter_of(8, 6, 4, 8, true);
    adapter.modules["model.layers.0.self_attn.v_proj"] = adapter_of(4, 6, 4, 2, true);
    adapter.modules["model.layers.1.mlp.up_proj"] = adapter_of(12, 6, 1, 8, true);
    adapter.config = peft_config_for(adapter.modules);
    REQUIRE(write_gguf_lora(folder / "a.gguf", adapter, small));
    const auto read = read_gguf_lora(folder / "a.gguf");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    const auto again = peft_from_gguf(*read, small);
    REQUIRE(again);
    for (const auto& entry : adapter.modules) {
        const std::string& module = entry.first;
        const auto& lora = lora_of(entry.second);
        const matrix<float> want = lora.delta().dense();
        const matrix<float> got = lora_of(again->modules.at(module)).delta().dense();
        CHECK_MESSAGE((want - got).norm() <= 1e-6F * want.norm(), module);
    }
}

TEST_CASE("the embedding table is stored transposed") {
    temporary_folder folder;
    peft_adapter adapter;
    adapter.modules["model.embed_tokens"] = peft_lora{.lora = adapter_of(6, 20, 2, 2), .is_table = true};
    adapter.config = peft_config_for(adapter);
    REQUIRE(write_gguf_lora(folder / "a.gguf", adapter, small));
    const auto file = gguf_file::open(folder / "a.gguf");
    REQUIRE(file);
    CHECK(file->find("token_embd.weight.lora_a")->ne == std::vector<std::uint64_t>{2, 20});
    CHECK(file->find("token_embd.weight.lora_b")->ne == std::vector<std::uint64_t>{2, 6});
    const auto again = peft_from_gguf(*read_gguf_lora(*file), small);
    REQUIRE(again);
    CHECK(lora_of(again->modules.at("model.embed_tokens")).lora_A ==
          lora_of(adapter.modules.at("model.embed_tokens")).lora_A);
    REQUIRE(write_gguf(folder / "base.gguf", {{"general.architecture", gguf_value::of("llama")}},
                       {ones("token_embd.weight", 20, 6)}));
    CHECK(check_gguf_base(*read_gguf_lora(*file), *gguf_file::open(folder / "base.gguf")));
}

TEST_CASE("what a GGUF adapter cannot say is not written") {
    temporary_folder folder;
    const auto refused = [&](errc code, const peft_adapter& adapter) {
        const status why = write_gguf_lora(folder / "a.gguf", adapter, small);
        CHECK_MESSAGE(why.code == code, why.message);
        CHECK(folder.listing().empty());
    };
    const auto of = [](const char* module, Eigen::Index out) {
        peft_adapter a;
        a.modules[module] = adapter_of(out, 6, 2, 2);
        return a;
    };
    refused(errc::unsupported, of("transformer.h.0.attn.c_attn", 8));
    refused(errc::unsupported, of("lm_head", 8));
    refused(errc::unsupported, of("model.embed_tokens", 8));  // a table is an embedding, not a linear layer
    refused(errc::mismatch, of("model.layers.0.self_attn.q_proj", 6));
    auto extra = of("model.layers.0.mlp.up_proj", 8);
    extra.modules["score.weight"] = whole_tensor{{.name = "score.weight"}};
    refused(errc::unsupported, extra);
    auto infinite = of("model.layers.0.mlp.up_proj", 8);
    lora_of(infinite.modules.begin()->second).lora_A(0, 0) = std::numeric_limits<float>::infinity();
    refused(errc::non_finite, infinite);
}

TEST_CASE("broken adapters are refused, naming the key or tensor") {
    temporary_folder folder;
    const auto refused = [&](errc code, std::string_view says, const std::vector<gguf_entry>& keys,
                             const std::vector<gguf_tensor_to_write>& tensors) {
        REQUIRE(write_gguf(folder / "a.gguf", keys, tensors));
        const auto read = read_gguf_lora(folder / "a.gguf");
        REQUIRE_MESSAGE(!read, says);
        CHECK_MESSAGE(read.error().code == code, read.error().message);
        CHECK_MESSAGE(read.error().message.find(says) != std::string::npos, read.error().message);
    };
    const std::string a = "blk.0.ffn_up.weight.lora_a";
    const std::string b = "blk.0.ffn_up.weight.lora_b";
    const std::vector<gguf_tensor_to_write> good = {ones(a, 2, 6), ones(b, 8, 2)};
    refused(errc::invalid_format, "general.type must be there", {}, good);
    refused(errc::invalid_format, "this is no adapter", entries("general.type", gguf_value::of("model")), good);
    refused(errc::invalid_format, "general.architecture", entries("general.architecture", gguf_value::of(1U)), good);
    refused(errc::unsupported, "\"ia3\"", entries("adapter.type", gguf_value::of("ia3")), good);
    refused(errc::invalid_format, "adapter.lora.alpha", entries("adapter.lora.alpha", gguf_value::of(8U)), good);
    refused(errc::non_finite, "adapter.lora.alpha",
            entries("adapter.lora.alpha", gguf_value::of(std::numeric_limits<float>::infinity())), good);
    refused(errc::invalid_format, "array of u32", entries("adapter.alora.invocation_tokens", gguf_value::of(1U)), good);
    const std::vector<std::uint32_t> tokens = {1, 2};
    refused(errc::unsupported, "aLoRA",
            entries("adapter.alora.invocation_tokens", gguf_value::of(std::span<const std::uint32_t>(tokens))), good);
    refused(errc::invalid_format, "lacks lora_b", entries(), {ones(a, 2, 6)});
    refused(errc::invalid_format, "lacks lora_a", entries(), {ones(b, 8, 2)});
    refused(errc::mismatch, "may be stored transposed", entries(), {ones(a, 6, 2), ones(b, 2, 8)});
    refused(errc::mismatch, "has rank 3", entries(), {ones(a, 3, 6), ones(b, 8, 2)});
    refused(errc::invalid_format, "neither lora_a nor lora_b", entries(), {ones("blk.0.ffn_up.weight", 8, 6)});
    refused(errc::invalid_format, "no LoRA tensors", entries(), {ones("blk.0.attn_norm.weight", 1, 6)});
    refused(errc::non_finite, "NaN", entries(),
            {ones(a, 2, 6, std::numeric_limits<float>::quiet_NaN()), ones(b, 8, 2)});
    auto integers = ones(a, 2, 6);
    integers.type = ggml_type::i32;
    refused(errc::unsupported, "I32", entries(), {integers, ones(b, 8, 2)});
    auto flat = ones(a, 2, 6);
    flat.ne = {12};
    refused(errc::invalid_format, "has 1 dimensions", entries(), {flat, ones(b, 8, 2)});
    auto experts = ones(a, 2, 6);
    experts.ne = {6, 1, 2};
    refused(errc::unsupported, "has 3 dimensions", entries(), {experts, ones(b, 8, 2)});

    REQUIRE(write_gguf(folder / "a.gguf", entries(), {good[0], good[1], ones("blk.0.attn_norm.weight", 1, 6)}));
    const auto read = read_gguf_lora(folder / "a.gguf");
    REQUIRE(read);
    CHECK(read->warnings.size() == 1);
    CHECK(read->tensors.at("blk.0.ffn_up.weight").scaling() == 2);

    const auto base = [&](const char* architecture, Eigen::Index rows, Eigen::Index cols, const char* name) {
        REQUIRE(write_gguf(folder / "base.gguf", {{"general.architecture", gguf_value::of(architecture)}},
                           {ones(name, rows, cols)}));
        return check_gguf_base(*read, *gguf_file::open(folder / "base.gguf"));
    };
    CHECK(base("llama", 8, 6, "blk.0.ffn_up.weight"));
    CHECK(base("qwen2", 8, 6, "blk.0.ffn_up.weight").message.find("architecture") != std::string::npos);
    CHECK(base("llama", 8, 6, "blk.1.ffn_up.weight").message.find("no tensor") != std::string::npos);
    CHECK(base("llama", 6, 8, "blk.0.ffn_up.weight").message.find("transposed") != std::string::npos);
}

TEST_CASE("an adapter without alpha has scaling one") {
    temporary_folder folder;
    auto keys = entries();
    std::erase_if(keys, [](const gguf_entry& e) { return e.key == "adapter.lora.alpha"; });
    REQUIRE(write_gguf(folder / "a.gguf", keys,
                       {ones("blk.0.ffn_up.weight.lora_a", 2, 6), ones("blk.0.ffn_up.weight.lora_b", 8, 2)}));
    const auto read = read_gguf_lora(folder / "a.gguf");
    REQUIRE(read);
    CHECK(read->tensors.begin()->second.scaling() == 1);
}

TEST_CASE("a scaling that would underflow in 16 bits is kept") {
    temporary_folder folder;
    for (const double pattern : {1e-3, 16.0}) {
        peft_adapter adapter;
        for (const char* module : {"model.layers.0.mlp.up_proj", "model.layers.0.mlp.gate_proj"}) {
            auto lora = adapter_of(12, 6, 4, module[19] == 'u' ? pattern : 1000);
            lora.lora_A *= 1e-3F;
            lora.lora_B *= 1e-3F;
            adapter.modules[module] = lora;
        }
        adapter.config = peft_config_for(adapter.modules);
        adapter.config.lora_alpha = 1000;
        REQUIRE(write_gguf_lora(folder / "a.gguf", adapter, small, {.type = ggml_type::f16}));
        const auto again = peft_from_gguf(*read_gguf_lora(folder / "a.gguf"), small);
        REQUIRE(again);
        for (const auto& entry : adapter.modules) {
            const matrix<double> want = lora_of(entry.second).delta().dense().cast<double>();
            const matrix<double> got = lora_of(again->modules.at(entry.first)).delta().dense().cast<double>();
            CHECK_MESSAGE((want - got).norm() <= 1e-2 * want.norm(), entry.first);
        }
    }
}

TEST_CASE("wrappers before a module's path do not hide its place in GGUF") {
    temporary_folder folder;
    for (const char* root : {"model.", "model.language_model.", "_orig_mod.model.", ""}) {
        peft_adapter adapter;
        adapter.modules[std::string(root) + "layers.1.mlp.up_proj"] = adapter_of(12, 6, 2, 2);
        adapter.config = peft_config_for(adapter.modules);
        REQUIRE(write_gguf_lora(folder / "a.gguf", adapter, small));
        CHECK(read_gguf_lora(folder / "a.gguf")->tensors.contains("blk.1.ffn_up.weight"));
    }
    peft_adapter adapter;
    adapter.modules["model.layers.1.mlp.up_projj"] = adapter_of(12, 6, 2, 2);
    CHECK(
        write_gguf_lora(folder / "b.gguf", adapter, small).message.find("the nearest name there is \"mlp.up_proj\"") !=
        std::string::npos);
    model_config gelu = small;
    gelu.hidden_act = "gelu";
    CHECK(write_gguf_lora(folder / "b.gguf", adapter, gelu).message.find("hidden_act") != std::string::npos);
}

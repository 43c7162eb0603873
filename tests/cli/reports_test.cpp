// SPDX-License-Identifier: MIT
// Situations from public bug reports of other tools, each made anew: the result is right, or a refusal says what to do.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/gguf.hpp>
#include <lowrank/io/containers/safetensors.hpp>

#include "process.hpp"

#ifndef LOWRANK_DOCS
#define LOWRANK_DOCS "docs"
#endif

namespace reports {

using namespace lowrank_tests;
using lowrank::dtype;
using lowrank::tensor_of;
using lowrank::tensor_to_write;
using nlohmann::json;
using fmatrix = lowrank::row_matrix<float>;
using dmatrix = lowrank::row_matrix<double>;

inline fmatrix noise(lowrank::index rows, lowrank::index cols, std::uint64_t stream, float deviation = 0.1F) {
    fmatrix m(rows, cols);
    lowrank::fill_normal(m, deviation, lowrank::philox(12, stream));
    return m;
}

inline dmatrix product(const fmatrix& b, const fmatrix& a) { return b.cast<double>() * a.cast<double>(); }

/// The same numbers under another shape.
tensor_to_write shaped(tensor_to_write t, std::vector<std::uint64_t> shape) {
    t.shape = std::move(shape);
    return t;
}

tensor_to_write raw(std::string name, dtype type, std::vector<std::uint64_t> shape, std::vector<std::uint8_t> values) {
    auto bytes = std::make_shared<std::vector<std::byte>>(values.size());
    std::memcpy(bytes->data(), values.data(), values.size());
    return {.name = std::move(name), .type = type, .shape = std::move(shape), .bytes = *bytes, .owned = bytes};
}

/// A number without dimensions.
tensor_to_write number(std::string name, float x) {
    return shaped(tensor_of(std::move(name), lowrank::vector<float>(lowrank::vector<float>::Constant(1, x))), {});
}

double distance(const dmatrix& got, const dmatrix& want) { return (got - want).norm() / want.norm(); }

const std::string q = "model.layers.0.self_attn.q_proj";
const std::string peft_q = "base_model.model." + q;

/// The configuration of a model of one layer.
json llama_config(const std::string& type = "llama") {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", type},
            {"hidden_act", "silu"},
            {"hidden_size", 16},
            {"intermediate_size", 24},
            {"num_hidden_layers", 1},
            {"num_attention_heads", 2},
            {"num_key_value_heads", 1},
            {"vocab_size", 32},
            {"max_position_embeddings", 64},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 10000.0},
            {"tie_word_embeddings", false}};
}

json lora_config() { return {{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 16}, {"target_modules", {"q_proj"}}}; }

/// The messages that docs/my-adapter-does-not-map.md has a heading for, each as the parts around its three dots.
inline const std::vector<std::vector<std::string>>& messages_of_page() {
    static const auto all = [] {
        std::vector<std::vector<std::string>> messages;
        const std::string page = read_text(std::filesystem::path(LOWRANK_DOCS) / "my-adapter-does-not-map.md");
        const std::string dots = " \xE2\x80\xA6 ", start = "\n### `";
        for (std::size_t at = 0; (at = page.find(start, at)) != std::string::npos; ++at) {
            std::string heading = page.substr(at + start.size(), page.find("`\n", at) - at - start.size());
            auto& parts = messages.emplace_back();
            for (std::size_t end = 0; (end = heading.find(dots)) != std::string::npos;) {
                parts.push_back(heading.substr(0, end));
                heading.erase(0, end + dots.size());
            }
            parts.push_back(std::move(heading));
        }
        return messages;
    }();
    return all;
}

/// A base, an adapter and what the tool makes of them.
struct situation {
    temporary_folder folder;
    fmatrix a = noise(4, 16, 1), b = noise(16, 4, 2);  ///< Of q_proj.

    [[nodiscard]] std::string path(const std::string& name) const { return (folder / name).string(); }
    void write(const std::string& file, const std::vector<tensor_to_write>& tensors,
               const std::map<std::string, std::string>& metadata = {}) const {
        std::filesystem::create_directories((folder / file).parent_path());
        lowrank::throw_if_failed(lowrank::write_safetensors(folder / file, tensors, metadata));
    }
    void write_model(const std::string& name, const std::vector<tensor_to_write>& tensors, const json& config) const {
        write(name + "/model.safetensors", tensors);
        write_text(folder / name / "config.json", config.dump());
    }
    void write_adapter(const std::string& name, const std::vector<tensor_to_write>& tensors, const json& config) const {
        write(name + "/adapter_model.safetensors", tensors);
        write_text(folder / name / "adapter_config.json", config.dump());
    }
    [[nodiscard]] std::vector<tensor_to_write> factors(const std::string& module) const {
        return {tensor_of(module + ".lora_A.weight", a), tensor_of(module + ".lora_B.weight", b)};
    }
    /// All weights of a model of one layer; those named in `instead` are as there.
    [[nodiscard]] std::vector<tensor_to_write> llama(std::vector<tensor_to_write> instead = {}) const {
        const std::string p = "model.layers.0.";
        const std::vector<std::pair<std::string, std::array<lowrank::index, 2>>> shapes = {
            {"model.embed_tokens", {32, 16}},
            {p + "self_attn.q_proj", {16, 16}},
            {p + "self_attn.k_proj", {8, 16}},
            {p + "self_attn.v_proj", {8, 16}},
            {p + "self_attn.o_proj", {16, 16}},
            {p + "mlp.gate_proj", {24, 16}},
            {p + "mlp.up_proj", {24, 16}},
            {p + "mlp.down_proj", {16, 24}},
            {p + "input_layernorm", {16, 0}},
            {p + "post_attention_layernorm", {16, 0}},
            {"model.norm", {16, 0}},
            {"lm_head", {32, 16}}};
        std::uint64_t stream = 100;
        for (const auto& [name, shape] : shapes) {
            const bool given = std::any_of(instead.begin(), instead.end(),
                                           [&, &n = name](const auto& t) { return t.name.starts_with(n + "."); });
            const fmatrix w = noise(shape[0], shape[1] == 0 ? 1 : shape[1], stream++);
            if (!given) {
                auto t = tensor_of(name + ".weight", w);
                t.shape.resize(shape[1] == 0 ? 1 : 2);
                instead.push_back(std::move(t));
            }
        }
        return instead;
    }
    [[nodiscard]] dmatrix weight(const std::string& file, const std::string& name) const {
        return lowrank::safetensors_file::open(folder / file).value().matrix<double>(name).value();
    }
    /// Merges into `base`; the result is in "out", anew.
    [[nodiscard]] process_result merge(const std::string& adapter, std::vector<std::string> more = {},
                                       const std::string& base = "base") const {
        std::filesystem::remove_all(folder / "out");
        std::vector<std::string> line = {"merge", path(base), "--adapter", path(adapter), "--output", path("out")};
        line.insert(line.end(), more.begin(), more.end());
        return run_tool(line);
    }
    [[nodiscard]] process_result convert(const std::string& from, const std::string& to,
                                         std::vector<std::string> more = {}) const {
        std::filesystem::remove_all(folder / "out");
        std::vector<std::string> line = {"convert", path(from),   "--to",     to,
                                         "--model", path("base"), "--output", path("out")};
        line.insert(line.end(), more.begin(), more.end());
        return run_tool(line);
    }
    [[nodiscard]] dmatrix merged(const std::string& name) const { return weight("out/model.safetensors", name); }
    /// Nothing is left behind; the message has these words, and the page says what to do about it.
    void check_refused(const process_result& r, const std::vector<std::string>& words) const {
        CAPTURE(r.err);
        CHECK(r.exit_code == 1);
        CHECK(r.out.empty());
        CHECK_FALSE(std::filesystem::exists(folder / "out"));
        for (const auto& w : words) {
            CAPTURE(w);
            CHECK(r.err.find(w) != std::string::npos);
        }
        const auto is_in_message = [&](const std::string& part) { return r.err.find(part) != std::string::npos; };
        CHECK(std::any_of(messages_of_page().begin(), messages_of_page().end(),
                          [&](const auto& parts) { return std::all_of(parts.begin(), parts.end(), is_in_message); }));
    }
};

/// The weight is what it should be.
#define CHECK_MERGED(s, r, name, want)                  \
    do {                                                \
        CAPTURE((r).err);                               \
        REQUIRE((r).exit_code == 0);                    \
        CHECK(distance((s).merged(name), want) < 1e-5); \
    } while (false)

TEST_CASE("report 01: alpha stands in the header of a file, or --alpha says it, or its absence is said") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    const dmatrix w = s.weight("base/model.safetensors", q + ".weight");
    const json diffusers = {{"transformer.r", 4}, {"transformer.lora_alpha", 16}};
    const std::vector<std::map<std::string, std::string>> headers = {
        {{"format", "pt"}, {"lora_adapter_metadata", diffusers.dump()}},
        {{"alpha", "16"}, {"rank", "4"}},
        {{"transformer.lora_alpha", "16"}, {"transformer.r", "4"}}};
    for (const auto& header : headers) {
        s.write("f.safetensors", s.factors("transformer." + q), header);
        CHECK_MERGED(s, s.merge("f.safetensors"), q + ".weight", w + 4 * product(s.b, s.a));
    }
    s.write("f.safetensors", s.factors("transformer." + q));
    const auto assumed = s.merge("f.safetensors");
    CHECK_MERGED(s, assumed, q + ".weight", w + product(s.b, s.a));
    CHECK(assumed.err.find("scaling 1") != std::string::npos);
    CHECK_MERGED(s, s.merge("f.safetensors", {"--alpha", "8"}), q + ".weight", w + 2 * product(s.b, s.a));
    REQUIRE(s.convert("f.safetensors", "kohya", {"--alpha", "8"}).exit_code == 0);
    const auto file = lowrank::safetensors_file::open(s.folder / "out").value();
    CHECK(file.matrix<double>("lora_unet_model_layers_0_self_attn_q_proj.alpha").value()(0, 0) == 8);
    CHECK(s.merge("f.safetensors", {"--alpha", "much"}).exit_code == 2);
}

TEST_CASE("report 04: a base_layer beside LoRA is what the LoRA changes") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    const fmatrix head = noise(32, 16, 5, 1.0F), b = noise(32, 4, 6);
    auto config = lora_config();
    config["target_modules"] = {"lm_head"};
    s.write_adapter("ad",
                    {tensor_of("base_model.model.lm_head.lora_A.weight", s.a),
                     tensor_of("base_model.model.lm_head.lora_B.weight", b),
                     tensor_of("base_model.model.lm_head.base_layer.weight", head)},
                    config);
    CHECK_MERGED(s, s.merge("ad"), "lm_head.weight", head.cast<double>() + 4 * product(b, s.a));
}

TEST_CASE("report 07: tables of another vocabulary are refused with both sizes") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    auto config = lora_config();
    config["modules_to_save"] = {"lm_head"};
    for (const lowrank::index rows : {30, 34}) {
        auto tensors = s.factors(peft_q);
        tensors.push_back(tensor_of("base_model.model.lm_head.weight", noise(rows, 16, 7)));
        s.write_adapter("ad", tensors, config);
        s.check_refused(s.merge("ad"), {std::to_string(rows), "32", "resize_token_embeddings"});
    }
    config = lora_config();
    config["trainable_token_indices"] = {{"embed_tokens", {30, 33}}};
    auto tensors = s.factors(peft_q);
    tensors.push_back(
        tensor_of("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", noise(2, 16, 8)));
    s.write_adapter("ad", tensors, config);
    s.check_refused(s.merge("ad"), {"33", "32"});
}

TEST_CASE("reports 08 and 09: a saved head takes the type of the base, a new one is added") {
    const situation s;
    const lowrank::row_matrix<lowrank::bfloat16> old_head = noise(32, 16, 9).cast<lowrank::bfloat16>();
    s.write_model("base", s.llama({tensor_of("lm_head.weight", old_head)}), llama_config());
    const fmatrix head = noise(32, 16, 10), score = noise(5, 16, 11);
    auto tensors = s.factors(peft_q);
    tensors.push_back(tensor_of("base_model.model.lm_head.weight", head));
    tensors.push_back(tensor_of("base_model.model.score.weight", score));
    auto config = lora_config();
    config["modules_to_save"] = {"lm_head", "score"};
    s.write_adapter("ad", tensors, config);
    const auto r = s.merge("ad");
    CHECK_MERGED(s, r, "score.weight", score.cast<double>());
    const lowrank::row_matrix<lowrank::bfloat16> rounded = head.cast<lowrank::bfloat16>();
    CHECK(s.merged("lm_head.weight") == dmatrix(rounded.cast<double>()));
    const auto file = lowrank::safetensors_file::open(s.folder / "out/model.safetensors").value();
    CHECK(file.find("lm_head.weight")->type == dtype::bf16);
}

TEST_CASE("report 13: the core of a LoCon is used") {
    const situation s;
    const lowrank::index r = 4, n = 8;
    for (const lowrank::index taps : {1, 9}) {
        const fmatrix down = noise(r, n, 20, 0.3F), core = noise(r, r * taps, 21, 0.3F), up = noise(n, r, 22, 0.3F);
        const fmatrix w = noise(n, n * taps, 23);
        dmatrix want = w.cast<double>();
        for (lowrank::index o = 0; o < n; ++o) {
            for (lowrank::index i = 0; i < n; ++i) {
                for (lowrank::index t = 0; t < taps; ++t) {
                    for (lowrank::index j = 0; j < r; ++j) {
                        for (lowrank::index k = 0; k < r; ++k) {
                            want(o, i * taps + t) += static_cast<double>(up(o, j)) *
                                                     static_cast<double>(core(j, k * taps + t)) *
                                                     static_cast<double>(down(k, i));
                        }
                    }
                }
            }
        }
        const auto edge = static_cast<std::uint64_t>(std::lround(std::sqrt(static_cast<double>(taps))));
        s.write_model("base", {shaped(tensor_of("blk.conv1.weight", w), {8, 8, edge, edge})}, {{"model_type", "unet"}});
        const std::string name = "lora_unet_blk_conv1";
        s.write("k.safetensors",
                {shaped(tensor_of(name + ".lora_down.weight", down), {4, 8, 1, 1}),
                 shaped(tensor_of(name + ".lora_mid.weight", core), {4, 4, edge, edge}),
                 shaped(tensor_of(name + ".lora_up.weight", up), {8, 4, 1, 1}), number(name + ".alpha", 4)});
        const auto merged = s.merge("k.safetensors");
        CAPTURE(merged.err);
        REQUIRE(merged.exit_code == 0);
        const auto file = lowrank::safetensors_file::open(s.folder / "out/model.safetensors").value();
        const auto* t = file.find("blk.conv1.weight");
        REQUIRE(t != nullptr);
        std::vector<double> values(static_cast<std::size_t>(want.size()));
        lowrank::convert_elements<double>(t->type, file.bytes(*t), values);
        CHECK(distance(Eigen::Map<const dmatrix>(values.data(), want.rows(), want.cols()), want) < 1e-5);
        REQUIRE(s.convert("k.safetensors", "peft").exit_code == 0);
        const auto peft = lowrank::safetensors_file::open(s.folder / "out/adapter_model.safetensors").value();
        const auto* a = peft.find("base_model.model.blk.conv1.lora_A.weight");
        REQUIRE(a != nullptr);
        CHECK(a->shape == std::vector<std::uint64_t>{4, 8, edge, edge});
    }
}

TEST_CASE("report 14: the magnitude of DoRA is known under the names of all trainers") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    const dmatrix v = s.weight("base/model.safetensors", q + ".weight") + product(s.b, s.a);
    lowrank::vector<float> m = noise(16, 1, 30).cwiseAbs().array() + 0.5F;
    const lowrank::vector<double> size = m.cast<double>();
    const dmatrix rows = size.asDiagonal() * v.rowwise().normalized();
    const dmatrix columns = v.colwise().normalized() * size.asDiagonal();
    const std::string trained = "diffusion_model." + q, flat = "lora_unet_model_layers_0_self_attn_q_proj";
    const auto with = [&](tensor_to_write magnitude, std::vector<std::uint64_t> shape) {
        std::vector<tensor_to_write> all = s.factors(trained);
        if (magnitude.name.starts_with(flat)) {
            all[0].name = flat + ".lora_down.weight";
            all[1].name = flat + ".lora_up.weight";
            all.push_back(number(flat + ".alpha", 4));
        }
        all.push_back(shaped(std::move(magnitude), std::move(shape)));
        s.write("f.safetensors", all);
        return s.merge("f.safetensors");
    };
    for (const std::string name : {".magnitude", ".lora_magnitude_vector.weight", ".lora_magnitude_vector"}) {
        CHECK_MERGED(s, with(tensor_of(trained + name, m), {16}), q + ".weight", rows);
    }
    CHECK_MERGED(s, with(tensor_of(trained + ".dora_scale", m), {16, 1}), q + ".weight", rows);
    CHECK_MERGED(s, with(tensor_of(flat + ".dora_scale", m), {16, 1}), q + ".weight", rows);
    CHECK_MERGED(s, with(tensor_of(flat + ".dora_scale", m), {1, 16}), q + ".weight", columns);
}

TEST_CASE("report 17: every module has its own alpha, of any type of numbers") {
    const situation s;
    struct alpha_of_module {
        lowrank::index r;
        std::vector<tensor_to_write> alpha;
        double scaling;
    };
    const auto bytes_of_i64 = std::vector<std::uint8_t>{16, 0, 0, 0, 0, 0, 0, 0};
    const std::vector<alpha_of_module> all = {{4, {number("x", 94)}, 94.0 / 4},
                                              {32, {}, 1},
                                              {4, {raw("x", dtype::i64, {}, bytes_of_i64)}, 4},
                                              {4, {raw("x", dtype::bf16, {}, {0x80, 0x41})}, 4},
                                              {4, {raw("x", dtype::f16, {1}, {0x00, 0x4C})}, 4},
                                              {4, {number("x", 0)}, 1},
                                              {4, {number("x", -4)}, -1}};
    std::vector<tensor_to_write> base, file;
    std::vector<dmatrix> want;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const std::string n = std::to_string(i), flat = "lora_unet_b_" + n + "_x";
        const fmatrix w = noise(16, 16, 40 + i), a = noise(all[i].r, 16, 50 + i), b = noise(16, all[i].r, 60 + i);
        base.push_back(tensor_of("b." + n + ".x.weight", w));
        file.push_back(tensor_of(flat + ".lora_down.weight", a));
        file.push_back(tensor_of(flat + ".lora_up.weight", b));
        for (auto alpha : all[i].alpha) {
            alpha.name = flat + ".alpha";
            file.push_back(std::move(alpha));
        }
        want.emplace_back(w.cast<double>() + all[i].scaling * product(b, a));
    }
    s.write_model("base", base, json::object());
    s.write("f.safetensors", file);
    const auto check = [&](const process_result& r) {
        for (std::size_t i = 0; i < want.size(); ++i) {
            CAPTURE(i);
            CHECK_MERGED(s, r, "b." + std::to_string(i) + ".x.weight", want[i]);
        }
    };
    check(s.merge("f.safetensors"));
    REQUIRE(s.convert("f.safetensors", "peft").exit_code == 0);
    std::filesystem::rename(s.folder / "out", s.folder / "through");
    check(s.merge("through"));
}

TEST_CASE("report 22: a quantized base is called quantized") {
    const situation s;
    const std::vector<std::uint8_t> zeros(256);
    const std::vector<std::vector<tensor_to_write>> kinds = {
        {raw(q + ".weight", dtype::u8, {128, 1}, std::vector<std::uint8_t>(128)),
         raw(q + ".weight.absmax", dtype::u8, {4}, std::vector<std::uint8_t>(4)),
         raw(q + ".weight.quant_state.bitsandbytes__nf4", dtype::u8, {80}, std::vector<std::uint8_t>(80))},
        {raw(q + ".qweight", dtype::i32, {2, 16}, std::vector<std::uint8_t>(128)),
         raw(q + ".qzeros", dtype::i32, {1, 2}, std::vector<std::uint8_t>(8)),
         tensor_of(q + ".scales", noise(1, 16, 70))},
        {raw(q + ".weight", dtype::i8, {16, 16}, zeros),
         tensor_of(q + ".SCB", lowrank::vector<float>(lowrank::vector<float>::Ones(16)))}};
    s.write_adapter("ad", s.factors(peft_q), lora_config());
    for (const auto& quantized : kinds) {
        s.write_model("base", s.llama(quantized), llama_config());
        s.check_refused(s.merge("ad"), {"is quantized", q, "merge into the model it was made from"});
    }
}

TEST_CASE("report 26: GPT-2 stores its weights in x out, whatever the flag of the adapter") {
    const situation s;
    const std::string attn = "transformer.h.0.attn.";
    const fmatrix c_attn = noise(16, 48, 80), c_proj = noise(16, 16, 81), head = noise(32, 16, 82);
    const json config = {{"model_type", "gpt2"}, {"n_embd", 16}, {"n_head", 2}, {"n_layer", 1}};
    s.write_model("base",
                  {tensor_of(attn + "c_attn.weight", c_attn), tensor_of(attn + "c_proj.weight", c_proj),
                   tensor_of("lm_head.weight", head), tensor_of("transformer.wte.weight", noise(32, 16, 83))},
                  config);
    const fmatrix b_attn = noise(48, 4, 84), b_head = noise(32, 4, 85);
    for (const bool flag : {true, false}) {
        auto how = lora_config();
        how["fan_in_fan_out"] = flag;
        auto tensors = s.factors("base_model.model." + attn + "c_proj");
        tensors.push_back(tensor_of("base_model.model." + attn + "c_attn.lora_A.weight", s.a));
        tensors.push_back(tensor_of("base_model.model." + attn + "c_attn.lora_B.weight", b_attn));
        tensors.push_back(tensor_of("base_model.model.lm_head.lora_A.weight", s.a));
        tensors.push_back(tensor_of("base_model.model.lm_head.lora_B.weight", b_head));
        s.write_adapter("ad", tensors, how);
        const auto r = s.merge("ad");
        CHECK_MERGED(s, r, attn + "c_proj.weight", c_proj.cast<double>() + 4 * product(s.b, s.a).transpose());
        CHECK_MERGED(s, r, attn + "c_attn.weight", c_attn.cast<double>() + 4 * product(b_attn, s.a).transpose());
        CHECK_MERGED(s, r, "lm_head.weight", head.cast<double>() + 4 * product(b_head, s.a));
    }
    const auto r = run_tool({"extract", s.path("base"), s.path("out"), "--value", "4", "--output", s.path("found")});
    CAPTURE(r.err);
    REQUIRE(r.exit_code == 0);
    CHECK(json::parse(read_text(s.folder / "found/adapter_config.json")).at("fan_in_fan_out") == true);
    const std::string name = "base_model.model." + attn + "c_attn.lora_B.weight";
    CHECK(s.weight("found/adapter_model.safetensors", name).rows() == 48);
}

TEST_CASE("report 27: adapters and models of an architecture that is not known do not become GGUF") {
    const situation s;
    s.write_adapter("ad", s.factors(peft_q), lora_config());
    for (const std::string type : {"qwen2", "gemma2", "gemma3_text", "qwen3", "phi3"}) {
        s.write_model("base", s.llama(), llama_config(type));
        s.check_refused(s.convert("ad", "gguf"), {"model_type is \"" + type + "\""});
        s.check_refused(run_tool({"convert", s.path("base"), "--output", s.path("out")}), {type});
    }
    for (const std::string type : {"llama", "mistral"}) {
        s.write_model("base", s.llama(), llama_config(type));
        REQUIRE(s.convert("ad", "gguf").exit_code == 0);
        const auto file = lowrank::gguf_file::open(s.folder / "out").value();
        CHECK(*file.value("general.architecture")->as_string() == "llama");
        const auto b = file.matrix<float>("blk.0.attn_q.weight.lora_b").value();
        fmatrix want(16, 4);  // two heads of eight rows: halves become pairs
        for (lowrank::index i = 0; i < 16; ++i) {
            want.row(i) = s.b.row(i / 8 * 8 + i % 2 * 4 + i % 8 / 2);
        }
        CHECK(b == want);
    }
}

TEST_CASE("report 34: a small scaling does not underflow in 16 bits") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    const lowrank::row_matrix<lowrank::half> a = noise(4, 16, 90, 1e-3F).cast<lowrank::half>();
    const lowrank::row_matrix<lowrank::half> b = noise(16, 4, 91, 1e-3F).cast<lowrank::half>();
    auto config = lora_config();
    config["lora_alpha"] = 1000;
    config["alpha_pattern"] = {{"q_proj", 1e-3}};
    s.write_adapter("ad", {tensor_of(peft_q + ".lora_A.weight", a), tensor_of(peft_q + ".lora_B.weight", b)}, config);
    const dmatrix want = 1e-3 / 4 * product(fmatrix(b.cast<float>()), fmatrix(a.cast<float>()));
    REQUIRE(s.convert("ad", "gguf", {"--type", "f16"}).exit_code == 0);
    const auto file = lowrank::gguf_file::open(s.folder / "out").value();
    const auto gguf_b = file.matrix<float>("blk.0.attn_q.weight.lora_b").value();
    const auto gguf_a = file.matrix<float>("blk.0.attn_q.weight.lora_a").value();
    const auto alpha = static_cast<double>(file.value("adapter.lora.alpha")->as_f32().value());
    fmatrix sorted(16, 4);
    for (lowrank::index i = 0; i < 16; ++i) {
        sorted.row(i / 8 * 8 + i % 2 * 4 + i % 8 / 2) = gguf_b.row(i);
    }
    CHECK(distance(alpha / 4 * product(sorted, gguf_a), want) < 1e-2);
    for (const std::string format : {"kohya", "mlx", "diffusers", "loralib"}) {
        CAPTURE(format);
        REQUIRE(s.convert("ad", format).exit_code == 0);
        std::filesystem::remove_all(s.folder / "there");
        std::filesystem::rename(s.folder / "out", s.folder / "there");
        const dmatrix w = s.weight("base/model.safetensors", q + ".weight");
        const auto r = s.merge("there");
        CAPTURE(r.err);
        REQUIRE(r.exit_code == 0);
        const auto back = s.convert("there", "peft");
        REQUIRE(back.exit_code == 0);
        const auto adapter = lowrank::safetensors_file::open(s.folder / "out/adapter_model.safetensors").value();
        const json said = json::parse(read_text(s.folder / "out/adapter_config.json"));
        const dmatrix got = said.at("lora_alpha").get<double>() / 4 *
                            product(adapter.matrix<float>(peft_q + ".lora_B.weight").value(),
                                    adapter.matrix<float>(peft_q + ".lora_A.weight").value());
        CHECK(distance(got, want) < 1e-5);
    }
}

TEST_CASE("report 43: diff counts changed elements of every type") {
    const situation s;
    const auto one = [](std::string name, dtype type, std::size_t width, std::uint8_t byte) {
        std::vector<std::uint8_t> bytes(8 * width);
        for (std::size_t i = 0; i < 8; ++i) {
            bytes[i * width] = byte;
        }
        return raw(std::move(name), type, {8}, bytes);
    };
    const auto file = [&](bool changed) {
        const auto v = [&](std::uint8_t x) { return changed ? x : std::uint8_t{0}; };
        const float nan = std::numeric_limits<float>::quiet_NaN();
        const lowrank::vector<float> x = lowrank::vector<float>::Constant(8, changed ? nan : 0.0F);
        const lowrank::vector<float> y = lowrank::vector<float>::Constant(8, nan);
        return std::vector<tensor_to_write>{one("f8", dtype::f8_e4m3, 1, v(0x38)),
                                            one("u8", dtype::u8, 1, v(7)),
                                            one("i32", dtype::i32, 4, v(5)),
                                            one("i64", dtype::i64, 8, v(9)),
                                            one("bool", dtype::boolean, 1, v(1)),
                                            tensor_of("nan", x),
                                            tensor_of("same", y)};
    };
    s.write("a/model.safetensors", file(false));
    s.write("b/model.safetensors", file(true));
    const auto r = run_tool({"diff", s.path("a"), s.path("b"), "--json"});
    CAPTURE(r.err);
    REQUIRE(r.exit_code == 0);
    std::map<std::string, json> found;
    const json report = json::parse(r.out);
    for (const auto& d : report.at("differences")) {
        found[d.at("tensor")] = d;
    }
    for (const std::string name : {"f8", "u8", "i32", "i64", "bool", "nan"}) {
        CAPTURE(name);
        REQUIRE(found.count(name) == 1);
        CHECK(found[name].at("changed") == 8);
    }
    CHECK(found["nan"].at("not_finite") == 8);
    CHECK(found.count("same") == 0);
}

TEST_CASE("report 45: where nothing can be read, nothing is called done") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    const auto bytes = [](std::size_t n) { return std::vector<std::uint8_t>(n, 0x38); };
    const auto pair = [&](const std::string& a, const std::string& b) {
        return std::vector<tensor_to_write>{tensor_of(q + a, s.a), tensor_of(q + b, s.b)};
    };
    auto scalar = pair(".lora_down.weight", ".lora_up.weight");
    scalar.push_back(number(q + ".scalar", 0.5F));
    auto kernel = pair(".lora_down.weight", ".lora_up.weight");
    kernel[0].shape = {4, 4, 2, 2};
    kernel[1].shape = {4, 4, 2, 2};
    const std::string experts = "model.layers.0.mlp.switch_mlp.up_proj";
    const std::vector<std::vector<tensor_to_write>> files = {
        {raw(q + ".lora_A.weight", dtype::f8_e4m3, {4, 16}, bytes(64)),
         raw(q + ".lora_B.weight", dtype::f8_e4m3, {16, 4}, bytes(64))},
        {raw(q + ".lora_A.weight", dtype::i8, {4, 16}, bytes(64)),
         raw(q + ".lora_B.weight", dtype::i8, {16, 4}, bytes(64))},
        scalar,
        kernel,
        {shaped(tensor_of(experts + ".lora_a", noise(12, 16, 95)), {3, 4, 16}),
         shaped(tensor_of(experts + ".lora_b", noise(72, 4, 96)), {3, 24, 4})}};
    for (const auto& file : files) {
        s.write("f.safetensors", file);
        const bool is_readable = &file == &files.back();  // but its modules are of another model
        const std::string why =
            is_readable ? "no module of the file has a place in the model" : "no module of the file can be read";
        for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--skip-unsupported"}}) {
            s.check_refused(s.merge("f.safetensors", more), {why, file[0].name.substr(0, 19)});
            s.check_refused(s.convert("f.safetensors", "peft", more), {why});
        }
    }
    s.write("m/adapters.safetensors", files.back());
    write_text(
        s.folder / "m/adapter_config.json",
        R"({"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.0}})");
    s.check_refused(s.convert("m", "peft"), {"no module of the file has a place in the model"});
    s.write_adapter("empty", {}, lora_config());
    s.check_refused(s.merge("empty"), {"empty"});
}

TEST_CASE("a module that cannot be read fails the command, or is left out whole with --skip-unsupported") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    const dmatrix w = s.weight("base/model.safetensors", q + ".weight");
    const std::string o = "model.layers.0.self_attn.o_proj";
    auto file = s.factors(q);
    for (auto& t : s.factors(o)) {
        file.push_back(std::move(t));
    }
    file.push_back(number(o + ".lora_surprise", 1));
    s.write("f.safetensors", file, {{"alpha", "4"}, {"rank", "4"}});
    s.check_refused(s.merge("f.safetensors"), {"lora_surprise", "--skip-unsupported"});
    s.check_refused(s.convert("f.safetensors", "peft"), {"lora_surprise", "--skip-unsupported"});
    const auto skipped = s.merge("f.safetensors", {"--skip-unsupported"});
    CHECK_MERGED(s, skipped, q + ".weight", w + product(s.b, s.a));
    CHECK(skipped.err.find("lora_surprise") != std::string::npos);
    CHECK(s.merged(o + ".weight") == s.weight("base/model.safetensors", o + ".weight"));
    const auto converted = s.convert("f.safetensors", "peft", {"--skip-unsupported", "--json"});
    REQUIRE(converted.exit_code == 0);
    const auto report = json::parse(converted.out);
    CHECK(report.at("modules") == 1);
    CHECK(report.at("unmapped").size() == 3);

    auto folder = s.factors(peft_q);
    for (auto& t : s.factors("base_model.model." + o)) {
        folder.push_back(std::move(t));
    }
    folder.push_back(number("base_model.model." + o + ".lora_surprise", 1));
    s.write_adapter("ad", folder, lora_config());
    s.check_refused(s.merge("ad"), {"lora_surprise"});
    CHECK_MERGED(s, s.merge("ad", {"--skip-unsupported"}), q + ".weight", w + 4 * product(s.b, s.a));
    CHECK(s.merged(o + ".weight") == s.weight("base/model.safetensors", o + ".weight"));
}

TEST_CASE("report 46: a flattened name is the one module that it can mean, or it is refused") {
    const situation s;
    std::map<std::string, fmatrix> base;
    std::vector<tensor_to_write> tensors;
    for (const std::string name :
         {"net.a_b.c", "net.a.b_c", "blocks.1.attn", "blocks.11.attn", "a.to_k", "b.a.to_k", "to_k"}) {
        tensors.push_back(tensor_of(name + ".weight", noise(8, 8, 110 + base.size())));
        base[name] = noise(8, 8, 110 + base.size());
    }
    s.write_model("base", tensors, json::object());
    const fmatrix a = noise(2, 8, 120), b = noise(8, 2, 121);
    const auto merged = [&](const std::string& flat) {
        s.write("f.safetensors", {tensor_of(flat + ".lora_down.weight", a), tensor_of(flat + ".lora_up.weight", b)});
        return s.merge("f.safetensors");
    };
    const std::map<std::string, std::string> meant = {{"lora_unet_blocks_11_attn", "blocks.11.attn"},
                                                      {"lora_unet_blocks_1_attn", "blocks.1.attn"},
                                                      {"lora_unet_b_a_to_k", "b.a.to_k"},
                                                      {"lora_unet_a_to_k", "a.to_k"},
                                                      {"lora_unet_to_k", "to_k"},
                                                      {"lora_unet__blocks_1_attn", "blocks.1.attn"}};
    for (const auto& entry : meant) {
        const auto& flat = entry.first;
        const auto& module = entry.second;
        CAPTURE(flat);
        const auto r = merged(flat);
        CHECK_MERGED(s, r, module + ".weight", base[module].cast<double>() + product(b, a));
        for (const auto& [name, w] : base) {
            CHECK((name == module || s.merged(name + ".weight") == dmatrix(w.cast<double>())));
        }
    }
    s.check_refused(merged("lora_unet_net_a_b_c"), {"may mean", "net.a.b_c", "net.a_b.c"});
    s.check_refused(merged("lora_unet_mid_block_a_to_k"), {"mid_block_a_to_k", "nearest name"});
    s.check_refused(merged("lora_te_zzz_to_k"), {"zzz_to_k"});

    std::vector<tensor_to_write> both;
    for (const std::string name : {"net.a_b.c", "net.a.b_c"}) {
        both.push_back(tensor_of("base_model.model." + name + ".lora_A.weight", a));
        both.push_back(tensor_of("base_model.model." + name + ".lora_B.weight", b));
    }
    auto config = lora_config();
    config["r"] = 2;
    s.write_adapter("ad", both, config);
    s.check_refused(s.convert("ad", "kohya"), {"lora_unet_net_a_b_c", "net.a_b.c", "net.a.b_c"});
}

TEST_CASE("report 47: rotations are read where transformers 5 writes them") {
    const situation s;
    const auto convert = [&](const json& more) {
        json config = llama_config();
        if (!more.contains("rope_theta")) {
            config.erase("rope_theta");
        }
        config.update(more);
        s.write_model("base", s.llama(), config);
        std::filesystem::remove_all(s.folder / "out");
        return run_tool({"convert", s.path("base"), "--output", s.path("out")});
    };
    const json scaled = {{"rope_type", "llama3"},
                         {"factor", 8.0},
                         {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0},
                         {"original_max_position_embeddings", 32}};
    for (const json& more : {json{{"rope_theta", 500000.0}},
                             json{{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 500000.0}}}}}) {
        const auto r = convert(more);
        CAPTURE(r.err);
        REQUIRE(r.exit_code == 0);
        CHECK(lowrank::gguf_file::open(s.folder / "out").value().value("llama.rope.freq_base")->as_f32() == 500000.0F);
    }
    json moved = scaled;
    moved["rope_theta"] = 500000.0;
    s.check_refused(convert({{"rope_theta", 500000.0}, {"rope_scaling", scaled}}), {"rope_type"});
    s.check_refused(convert({{"rope_parameters", moved}}), {"rope_type"});
    s.check_refused(convert({{"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 1e4}}}}),
                    {"rope_type"});
}

TEST_CASE("report 49: spellings of adapter_config.json are read as they are meant, or refused by key") {
    const situation s;
    s.write_model("base", s.llama(), llama_config());
    s.write_adapter("ad", s.factors(peft_q), lora_config());
    const dmatrix w = s.weight("base/model.safetensors", q + ".weight");
    const auto with = [&](const json& more) {
        json config = lora_config();
        config.update(more);
        write_text(s.folder / "ad/adapter_config.json", config.dump());
        return s.merge("ad");
    };
    const dmatrix usual = w + 4 * product(s.b, s.a);
    const std::vector<json> harmless = {{{"lora_alpha", 16.0}},
                                        {{"rank_pattern", nullptr}, {"alpha_pattern", nullptr}},
                                        {{"lora_dropout", nullptr}},
                                        {{"bias", nullptr}},
                                        {{"fan_in_fan_out", nullptr}},
                                        {{"init_lora_weights", "gaussian"}},
                                        {{"target_modules", "all-linear"}},
                                        {{"some_new_feature", nullptr}, {"peft_version", "1.4.0"}},
                                        {{"use_brand_new_variant", true}},
                                        {{"layers_to_transform", {1}}},
                                        {{"exclude_modules", "q_proj"}},
                                        {{"loftq_config", {{"loftq_bits", 4}}}},
                                        {{"eva_config", {{"rho", 2.0}}}},
                                        {{"runtime_config", {{"ephemeral_gpu_offload", false}}}}};
    for (const auto& more : harmless) {
        CAPTURE(more.dump());
        CHECK_MERGED(s, with(more), q + ".weight", usual);
    }
    CHECK(with({{"use_brand_new_variant", true}}).err.find("use_brand_new_variant") != std::string::npos);
    CHECK_MERGED(s, with({{"use_rslora", true}}), q + ".weight", w + 8 * product(s.b, s.a));
    const std::vector<std::pair<json, std::string>> refused = {
        {{{"r", 4.5}}, "r must be"},
        {{{"peft_type", "lora"}}, "peft_type"},
        {{{"init_lora_weights", "pissa_niter_16"}}, "--base-is-residual"},
        {{{"init_lora_weights", "corda"}}, "--base-is-residual"},
        {{{"use_dora", true}}, "lora_magnitude_vector"}};
    for (const auto& entry : refused) {
        CAPTURE(entry.first.dump());
        s.check_refused(with(entry.first), {"ad", entry.second});
    }
    const std::string text = lora_config().dump();
    const auto as_text = [&](const std::string& written) {
        write_text(s.folder / "ad/adapter_config.json", written);
        return s.merge("ad");
    };
    std::string lines = lora_config().dump(2);
    for (std::size_t at = 0; (at = lines.find('\n', at)) != std::string::npos; at += 2) {
        lines.replace(at, 1, "\r\n");
    }
    CHECK_MERGED(s, as_text(lines), q + ".weight", usual);
    s.check_refused(as_text("\xEF\xBB\xBF" + text), {"byte order mark"});
    const std::string head = text.substr(0, text.size() - 1);
    for (const std::string& broken :
         {head + ",}", text + " // done", head + R"(,"lora_dropout":NaN})", std::string()}) {
        s.check_refused(as_text(broken), {"adapter_config.json", "not valid JSON near its byte"});
    }
    s.check_refused(as_text(R"({"r":4})"), {"no peft_type"});
}

}  // namespace reports

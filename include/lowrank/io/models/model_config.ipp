// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_MODEL_CONFIG_IPP
#define LOWRANK_IO_MODELS_MODEL_CONFIG_IPP

#include <lowrank/io/models/model_config.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Typed values of a config.json; the first of a wrong type stays in `why`.
class model_config_reader {
public:
    explicit model_config_reader(const json& object) : object_(object) {}

    status why = {};

    [[nodiscard]] const json* find(const std::string& name) const {
        const auto at = object_.find(name);
        return at == object_.end() || at->is_null() ? nullptr : &*at;
    }
    void read(const std::string& name, index& value) {
        const json* x = find(name);
        if (x != nullptr && x->is_number_integer() &&
            (!x->is_number_unsigned() || x->get<std::uint64_t>() < (1ULL << 62))) {
            value = static_cast<index>(x->get<std::int64_t>());
        } else if (x != nullptr) {
            fail(name, "a whole number");
        }
    }
    void read(const std::string& name, double& value) { read(name, value, &json::is_number, "a number"); }
    void read(const std::string& name, bool& value) { read(name, value, &json::is_boolean, "true or false"); }
    void read(const std::string& name, std::string& value) { read(name, value, &json::is_string, "a string"); }
    /// A token id, or the first of a list of them.
    void read_token(const std::string& name, int& value) {
        const json* x = find(name);
        const json* one = x != nullptr && x->is_array() && !x->empty() ? &x->front() : x;
        if (one != nullptr && one->is_number_integer() && *one >= 0 && *one <= 0x7fffffff) {
            value = one->get<int>();
        } else if (one != nullptr) {
            fail(name, "a token id");
        }
    }
    void fail(const std::string& name, const char* expected) {
        why = why ? status{errc::invalid_format, name + " must be " + expected} : why;
    }

private:
    template <class T>
    void read(const std::string& name, T& value, bool (json::*is_of_type)() const noexcept, const char* expected) {
        const json* x = find(name);
        if (x != nullptr && (x->*is_of_type)()) {
            value = x->get<T>();
        } else if (x != nullptr) {
            fail(name, expected);
        }
    }

    const json& object_;
};

LOWRANK_API [[nodiscard]] status read_rope_scaling(const json& object, model_config& c) {
    if (!object.is_object()) {
        return {errc::invalid_format, "rope_scaling and rope_parameters must be objects or null"};
    }
    if (!object.empty() && std::all_of(object.begin(), object.end(), [](const json& x) { return x.is_object(); })) {
        return {errc::unsupported, "rope_parameters has rotations of its own for each type of layer (" +
                                       in_quotes(object.begin().key()) + ", ...)"};
    }
    model_config_reader in(object);
    std::string type = "default";
    in.read("type", type);  // the older spelling
    in.read("rope_type", type);
    in.read("rope_theta", c.rope_theta);
    in.read("partial_rotary_factor", c.partial_rotary_factor);
    in.read("factor", c.scaling.factor);
    in.read("low_freq_factor", c.scaling.low_freq_factor);
    in.read("high_freq_factor", c.scaling.high_freq_factor);
    in.read("original_max_position_embeddings", c.scaling.original_max_position_embeddings);
    using enum rope_scaling::kind;
    c.scaling.type = type == "default" ? none : type == "linear" ? linear : type == "llama3" ? llama3 : other;
    c.scaling.name = c.scaling.type == other ? type : std::string();
    return in.why;
}

}  // namespace detail

LOWRANK_BODY result<model_config> parse_model_config(std::string_view text, std::span<const architecture> among) {
    const auto document = detail::read_json(std::as_bytes(std::span(text)));
    if (!document) {
        return document.error();
    }
    if (!document->is_object()) {
        return status{errc::invalid_format, "not a JSON object"};
    }
    detail::model_config_reader in(*document);
    model_config c;
    in.read("model_type", c.model_type);
    const auto a = find_architecture(c.model_type, among);
    if (!a) {
        return a.error();
    }
    in.read("hidden_act", c.hidden_act);
    in.read("partial_rotary_factor", c.partial_rotary_factor);
    bool has_head_dim = false;
    c.num_key_value_heads = c.head_dim = -1;
    for (const config_key& key : (*a)->keys) {
        key.count != nullptr ? in.read(key.hf, c.*key.count) : in.read(key.hf, c.*key.number);
        has_head_dim = has_head_dim || (key.count == &model_config::head_dim && in.find(key.hf) != nullptr);
    }
    in.read("tie_word_embeddings", c.tie_word_embeddings);
    in.read("attention_bias", c.attention_bias);
    in.read("mlp_bias", c.mlp_bias);
    in.read_token("bos_token_id", c.bos_token_id);
    in.read_token("eos_token_id", c.eos_token_id);
    c.is_quantized = in.find("quantization_config") != nullptr;
    for (const char* name : {"rope_scaling", "rope_parameters"}) {
        const auto* scaling = in.find(name);
        if (const status why = scaling != nullptr ? detail::read_rope_scaling(*scaling, c) : status{}; in.why && !why) {
            in.why = why;
        }
    }
    if (!in.why) {
        return in.why;
    }
    constexpr index most_heads = index{1} << 20;
    c.num_key_value_heads = c.num_key_value_heads == -1 ? c.num_attention_heads : c.num_key_value_heads;
    if (c.num_attention_heads < 1 || c.num_attention_heads > most_heads || c.num_key_value_heads < 1 ||
        c.num_key_value_heads > most_heads) {
        return status{errc::invalid_format,
                      "num_attention_heads and num_key_value_heads must be positive integers of at most 2^20"};
    }
    if (!has_head_dim && c.hidden_size % c.num_attention_heads != 0) {
        return status{errc::invalid_format, "hidden_size (" + std::to_string(c.hidden_size) +
                                                ") must be a multiple of num_attention_heads (" +
                                                std::to_string(c.num_attention_heads) + ")"};
    }
    c.head_dim = has_head_dim ? c.head_dim : c.hidden_size / c.num_attention_heads;
    return c;
}

LOWRANK_BODY result<model_config> read_model_config(const std::filesystem::path& config_json,
                                                    std::span<const architecture> among) {
    const auto file = mapped_file::open(config_json, {.map = false});
    if (!file) {
        return file.error();
    }
    auto config = parse_model_config(detail::text_of(file->bytes()), among);
    return config ? std::move(config) : result<model_config>(detail::in_file(config_json, config.error()));
}

LOWRANK_BODY result<std::string> model_config_text(const model_config& c, std::span<const architecture> among) {
    const auto a = find_architecture(c.model_type, among);
    if (!a) {
        return a.error();
    }
    nlohmann::ordered_json out = {
        {"architectures", {(*a)->hf_class}}, {"model_type", c.model_type}, {"hidden_act", c.hidden_act}};
    for (const config_key& key : (*a)->keys) {
        if (key.count != nullptr) {
            out[key.hf] = c.*key.count;
        } else {
            out[key.hf] = c.*key.number;
        }
    }
    const rope_scaling& s = c.scaling;
    if (c.partial_rotary_factor != 1) {
        out["partial_rotary_factor"] = c.partial_rotary_factor;
    }
    out["rope_scaling"] = nullptr;
    if (s.type != rope_scaling::kind::none) {
        out["rope_scaling"] = {{"rope_type", s.type == rope_scaling::kind::linear   ? "linear"
                                             : s.type == rope_scaling::kind::llama3 ? "llama3"
                                                                                    : s.name.c_str()},
                               {"factor", s.factor}};
    }
    if (s.type == rope_scaling::kind::llama3) {
        out["rope_scaling"]["low_freq_factor"] = s.low_freq_factor;
        out["rope_scaling"]["high_freq_factor"] = s.high_freq_factor;
        out["rope_scaling"]["original_max_position_embeddings"] = s.original_max_position_embeddings;
    }
    out["tie_word_embeddings"] = c.tie_word_embeddings;
    out["attention_bias"] = c.attention_bias;
    out["mlp_bias"] = c.mlp_bias;
    out["bos_token_id"] = c.bos_token_id;
    out["eos_token_id"] = c.eos_token_id;
    out["torch_dtype"] = "float32";
    return out.dump(2, ' ', true, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_MODEL_CONFIG_IPP

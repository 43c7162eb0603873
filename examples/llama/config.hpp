// SPDX-License-Identifier: MIT
#ifndef LLAMA_CONFIG_HPP
#define LLAMA_CONFIG_HPP

/// \file
/// The shape of a Llama-architecture model, as its config.json says it.
///
///     lowrank::result<llama::config> c = llama::parse_config(text);
///     if (!c) return report(c.error().message);
///
/// Names are those of the file. What would change the mathematics and is not implemented is refused by name.

#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace llama {

using lowrank::errc;
using lowrank::index;
using lowrank::result;
using lowrank::status;

/// How positions beyond the training length are squeezed into the rotation angles.
struct rope_scaling {
    enum class kind { none, linear, llama3 };
    kind type = kind::none;
    double factor = 1;
    double low_freq_factor = 1;
    double high_freq_factor = 4;
    double original_max_position_embeddings = 8192;
};

struct config {
    index vocab_size = 0;
    index hidden_size = 0;
    index intermediate_size = 0;
    index num_hidden_layers = 0;
    index num_attention_heads = 0;
    index num_key_value_heads = 0;  ///< Fewer than heads: each serves a group of consecutive heads.
    index head_dim = 0;
    index max_position_embeddings = 2048;
    double rms_norm_eps = 1e-6;
    double rope_theta = 10000;
    rope_scaling scaling = {};
    bool tie_word_embeddings = false;  ///< The output layer is the embedding matrix.
    bool attention_bias = false;       ///< q, k, v, o carry a bias.
    bool mlp_bias = false;             ///< gate, up, down carry a bias.
    int bos_token_id = 1;
    int eos_token_id = 2;

    [[nodiscard]] index query_size() const noexcept { return num_attention_heads * head_dim; }
    [[nodiscard]] index key_size() const noexcept { return num_key_value_heads * head_dim; }
};

/// Fails with one sentence unless the sizes make a model.
[[nodiscard]] inline status check(const config& c) {
    const auto fail = [](std::string text) { return status{errc::invalid_format, "config.json: " + std::move(text)}; };
    const struct {
        const char* name;
        index value;
    } sizes[] = {
        {"vocab_size", c.vocab_size},
        {"hidden_size", c.hidden_size},
        {"intermediate_size", c.intermediate_size},
        {"num_hidden_layers", c.num_hidden_layers},
        {"num_attention_heads", c.num_attention_heads},
        {"num_key_value_heads", c.num_key_value_heads},
        {"head_dim", c.head_dim},
        {"max_position_embeddings", c.max_position_embeddings},
    };
    for (const auto& s : sizes) {
        if (s.value < 1 || s.value > (index{1} << 30)) {
            return fail(std::string(s.name) + " must be between 1 and 2^30, it is " + std::to_string(s.value));
        }
    }
    if (c.num_attention_heads % c.num_key_value_heads != 0) {
        return fail("num_attention_heads (" + std::to_string(c.num_attention_heads) +
                    ") must be a multiple of num_key_value_heads (" + std::to_string(c.num_key_value_heads) + ")");
    }
    if (c.head_dim % 2 != 0) {
        return fail("head_dim must be even for rotary positions, it is " + std::to_string(c.head_dim));
    }
    const auto positive = [](double x) { return x > 0 && x < 1e30; };
    if (!positive(c.rms_norm_eps)) {
        return fail("rms_norm_eps must be positive and finite");
    }
    if (!positive(c.rope_theta)) {
        return fail("rope_theta must be positive and finite");
    }
    if (!positive(c.scaling.factor) || !positive(c.scaling.low_freq_factor) || !positive(c.scaling.high_freq_factor) ||
        !positive(c.scaling.original_max_position_embeddings)) {
        return fail("the numbers in rope_scaling must be positive and finite");
    }
    if (c.scaling.type == rope_scaling::kind::llama3 && c.scaling.high_freq_factor <= c.scaling.low_freq_factor) {
        return fail("rope_scaling: high_freq_factor must be larger than low_freq_factor");
    }
    return {};
}

/// Angle per position of the i-th rotated pair: theta^(-2 i / head_dim), rescaled as `c.scaling` says.
[[nodiscard]] inline double rope_frequency(const config& c, index i) {
    const double plain = std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
    const auto& s = c.scaling;
    switch (s.type) {
        case rope_scaling::kind::none: return plain;
        case rope_scaling::kind::linear: return plain / s.factor;
        case rope_scaling::kind::llama3: {
            // Turns within the original context: many are kept, few are slowed down, between the two it blends.
            const double turns = s.original_max_position_embeddings * plain / (2 * std::numbers::pi);
            if (turns > s.high_freq_factor) {
                return plain;
            }
            if (turns < s.low_freq_factor) {
                return plain / s.factor;
            }
            const double keep = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
            return (1 - keep) * plain / s.factor + keep * plain;
        }
    }
    return plain;
}

namespace detail {

/// Reads named values and remembers the first that has the wrong type.
class config_reader {
public:
    explicit config_reader(const nlohmann::json& object) : object_(object) {}

    void read(const char* name, index& value) {
        if (const auto* x = find(name)) {
            if (x->is_number_integer() && (!x->is_number_unsigned() || x->get<std::uint64_t>() < (1ULL << 62))) {
                value = static_cast<index>(x->get<std::int64_t>());
            } else {
                fail(name, "a whole number");
            }
        }
    }
    void read(const char* name, double& value) {
        if (const auto* x = find(name)) {
            x->is_number() ? void(value = x->get<double>()) : fail(name, "a number");
        }
    }
    void read(const char* name, bool& value) {
        if (const auto* x = find(name)) {
            x->is_boolean() ? void(value = x->get<bool>()) : fail(name, "true or false");
        }
    }
    void read(const char* name, std::string& value) {
        if (const auto* x = find(name)) {
            x->is_string() ? void(value = x->get<std::string>()) : fail(name, "a string");
        }
    }
    /// A token id, or the first of a list of them.
    void read_token(const char* name, int& value) {
        if (const auto* x = find(name)) {
            const auto& one = x->is_array() && !x->empty() ? x->front() : *x;
            if (one.is_number_integer() && one >= 0 && one <= 0x7fffffff) {
                value = one.get<int>();
            } else {
                fail(name, "a token id");
            }
        }
    }
    /// Null counts as absent, as in the files of the transformers library.
    [[nodiscard]] const nlohmann::json* find(const char* name) const {
        const auto at = object_.find(name);
        return at == object_.end() || at->is_null() ? nullptr : &*at;
    }
    [[nodiscard]] const status& why() const noexcept { return why_; }
    void fail(const char* name, const char* kind) {
        if (why_) {
            why_ = {errc::invalid_format, std::string("config.json: ") + name + " must be " + kind};
        }
    }

private:
    const nlohmann::json& object_;
    status why_ = {};
};

inline status read_rope_scaling(const nlohmann::json& object, config& c) {
    if (!object.is_object()) {
        return {errc::invalid_format, "config.json: rope_scaling must be an object or null"};
    }
    config_reader in(object);
    std::string type = "default";
    in.read("type", type);  // the older spelling
    in.read("rope_type", type);
    in.read("rope_theta", c.rope_theta);
    in.read("factor", c.scaling.factor);
    in.read("low_freq_factor", c.scaling.low_freq_factor);
    in.read("high_freq_factor", c.scaling.high_freq_factor);
    in.read("original_max_position_embeddings", c.scaling.original_max_position_embeddings);
    if (!in.why()) {
        return in.why();
    }
    if (type == "default") {
        c.scaling.type = rope_scaling::kind::none;
    } else if (type == "linear") {
        c.scaling.type = rope_scaling::kind::linear;
    } else if (type == "llama3") {
        c.scaling.type = rope_scaling::kind::llama3;
    } else {
        return {errc::unsupported, "config.json: rope_scaling of type '" + type +
                                       "' is not supported; this engine knows default, linear and llama3"};
    }
    return {};
}

}  // namespace detail

/// Reads and checks the text of a config.json.
/// \return invalid_format for broken JSON, a missing or impossible size; unsupported for another architecture, hidden
///         activation or kind of rope_scaling.
[[nodiscard]] inline result<config> parse_config(std::string_view text) {
    const auto object = nlohmann::json::parse(text, nullptr, false);
    if (!object.is_object()) {
        return status{errc::invalid_format, "config.json: not a JSON object"};
    }
    detail::config_reader in(object);
    config c;
    std::string model_type = "llama";
    std::string activation = "silu";
    in.read("model_type", model_type);
    in.read("hidden_act", activation);
    in.read("vocab_size", c.vocab_size);
    in.read("hidden_size", c.hidden_size);
    in.read("intermediate_size", c.intermediate_size);
    in.read("num_hidden_layers", c.num_hidden_layers);
    in.read("num_attention_heads", c.num_attention_heads);
    c.num_key_value_heads = c.num_attention_heads;
    in.read("num_key_value_heads", c.num_key_value_heads);
    c.head_dim = c.num_attention_heads > 0 ? c.hidden_size / c.num_attention_heads : 0;
    in.read("head_dim", c.head_dim);
    in.read("max_position_embeddings", c.max_position_embeddings);
    in.read("rms_norm_eps", c.rms_norm_eps);
    in.read("rope_theta", c.rope_theta);
    in.read("tie_word_embeddings", c.tie_word_embeddings);
    in.read("attention_bias", c.attention_bias);
    in.read("mlp_bias", c.mlp_bias);
    in.read_token("bos_token_id", c.bos_token_id);
    in.read_token("eos_token_id", c.eos_token_id);
    for (const char* name : {"rope_scaling", "rope_parameters"}) {
        if (const auto* scaling = in.find(name)) {
            if (status why = detail::read_rope_scaling(*scaling, c); !why) {
                return why;
            }
        }
    }
    if (!in.why()) {
        return in.why();
    }
    if (model_type != "llama") {
        return status{errc::unsupported, "config.json: model_type '" + model_type + "' is not supported, only llama"};
    }
    if (activation != "silu") {
        return status{errc::unsupported, "config.json: hidden_act '" + activation + "' is not supported, only silu"};
    }
    if (in.find("head_dim") == nullptr && c.num_attention_heads > 0 && c.hidden_size % c.num_attention_heads != 0) {
        return status{errc::invalid_format, "config.json: hidden_size (" + std::to_string(c.hidden_size) +
                                                ") must be a multiple of num_attention_heads (" +
                                                std::to_string(c.num_attention_heads) + ")"};
    }
    if (status why = check(c); !why) {
        return why;
    }
    return c;
}

/// The config.json text of `c`, as the transformers library reads it.
[[nodiscard]] inline std::string to_json(const config& c) {
    nlohmann::ordered_json out = {
        {"architectures", {"LlamaForCausalLM"}},
        {"model_type", "llama"},
        {"hidden_act", "silu"},
        {"hidden_size", c.hidden_size},
        {"intermediate_size", c.intermediate_size},
        {"num_hidden_layers", c.num_hidden_layers},
        {"num_attention_heads", c.num_attention_heads},
        {"num_key_value_heads", c.num_key_value_heads},
        {"head_dim", c.head_dim},
        {"vocab_size", c.vocab_size},
        {"max_position_embeddings", c.max_position_embeddings},
        {"rms_norm_eps", c.rms_norm_eps},
        {"rope_theta", c.rope_theta},
        {"rope_scaling", nullptr},
        {"tie_word_embeddings", c.tie_word_embeddings},
        {"attention_bias", c.attention_bias},
        {"mlp_bias", c.mlp_bias},
        {"bos_token_id", c.bos_token_id},
        {"eos_token_id", c.eos_token_id},
        {"torch_dtype", "float32"},
    };
    if (c.scaling.type == rope_scaling::kind::linear) {
        out["rope_scaling"] = {{"rope_type", "linear"}, {"factor", c.scaling.factor}};
    } else if (c.scaling.type == rope_scaling::kind::llama3) {
        out["rope_scaling"] = {{"rope_type", "llama3"},
                               {"factor", c.scaling.factor},
                               {"low_freq_factor", c.scaling.low_freq_factor},
                               {"high_freq_factor", c.scaling.high_freq_factor},
                               {"original_max_position_embeddings", c.scaling.original_max_position_embeddings}};
    }
    return out.dump(2) + "\n";
}

}  // namespace llama

#endif  // LLAMA_CONFIG_HPP

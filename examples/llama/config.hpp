// SPDX-License-Identifier: MIT
#ifndef LLAMA_CONFIG_HPP
#define LLAMA_CONFIG_HPP

/// \file
/// What the engine needs of the shape of a Llama model, which the library reads from config.json.
///
///     lowrank::result<llama::config> c = llama::parse_config(text);
///     if (!c) return report(c.error().message);
///
/// What would change the mathematics and is not implemented is refused by name.

#include <cmath>
#include <numbers>
#include <string>
#include <string_view>

#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/models/model_config.hpp>

namespace llama {

using lowrank::errc;
using lowrank::index;
using lowrank::result;
using lowrank::rope_scaling;
using lowrank::status;
using config = lowrank::model_config;

/// Fails with one sentence unless the sizes make a model that this engine computes.
[[nodiscard]] inline status check(const config& c) {
    const auto fail = [](std::string text) { return status{errc::invalid_format, "config.json: " + std::move(text)}; };
    const auto unsupported = [](const char* key, const std::string& value, const char* known) {
        return status{errc::unsupported, std::string("config.json: ") + key + " '" + value +
                                             "' is not supported; this engine knows " + known};
    };
    if (c.model_type != "llama") {
        return unsupported("model_type", c.model_type, "llama");
    }
    if (c.hidden_act != "silu") {
        return unsupported("hidden_act", c.hidden_act, "silu");
    }
    if (c.scaling.type == rope_scaling::kind::other) {
        return unsupported("rope_scaling of type", c.scaling.name, "default, linear and llama3");
    }
    if (c.partial_rotary_factor != 1) {
        return unsupported("partial_rotary_factor", std::to_string(c.partial_rotary_factor), "1");
    }
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
        case rope_scaling::kind::none:
        case rope_scaling::kind::other: return plain;
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

/// Reads and checks the text of a config.json.
/// \return invalid_format for broken JSON, a missing or impossible size; unsupported for another architecture, hidden
///         activation or kind of rope_scaling.
[[nodiscard]] inline result<config> parse_config(std::string_view text) {
    auto c = lowrank::parse_model_config(text);
    if (!c) {
        return status{c.error().code, "config.json: " + c.error().message};
    }
    if (status why = check(*c); !why) {
        return why;
    }
    return c;
}

/// The config.json text of `c`, as the transformers library reads it.
[[nodiscard]] inline std::string to_json(const config& c) { return *lowrank::model_config_text(c); }

}  // namespace llama

#endif  // LLAMA_CONFIG_HPP

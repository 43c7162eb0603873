// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_BASE_FACTS_IPP
#define LOWRANK_IO_MODELS_BASE_FACTS_IPP

#include <lowrank/io/models/base_facts.hpp>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/models/detail/config_beside.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

[[nodiscard]] inline std::string_view last_name(std::string_view module) {
    return module.substr(module.rfind('.') + 1);  // npos + 1 is 0
}

template <std::size_t N>
[[nodiscard]] bool is_among(std::string_view name, const std::array<std::string_view, N>& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

inline constexpr std::array<std::string_view, 4> conv1d_names{"c_attn", "c_proj", "c_fc", "q_attn"};

/// Models of transformers whose layers of these names are Conv1D, and those whose are Linear.
inline constexpr std::array<std::string_view, 4> conv1d_models{"gpt2", "openai-gpt", "decision_transformer",
                                                               "imagegpt"};
inline constexpr std::array<std::string_view, 3> linear_models{"gpt_bigcode", "starcoder2", "gptj"};

/// Models that tie the head where config.json says nothing.
inline constexpr std::array<std::string_view, 8> tied_models{"gpt2",        "gemma", "gemma2", "gemma3",
                                                             "gemma3_text", "opt",   "bloom",  "t5"};

/// Whether layers of these names are stored in x out, as their shapes say it: [d, 3 d] of c_attn, [d, 4 d] of c_fc.
[[nodiscard]] inline std::optional<bool> conv1d_by_shape(const checkpoint& base) {
    for (const checkpoint::place& p : base.tensors()) {
        const tensor_info& t = *p.info;
        const bool is_attn = t.name.ends_with("attn.c_attn.weight");
        if (t.shape.size() == 2 && (is_attn || t.name.ends_with("mlp.c_fc.weight")) && t.shape[0] != t.shape[1] &&
            t.shape[0] != 0 && t.shape[1] != 0) {
            return t.shape[0] < t.shape[1];  // both widen
        }
    }
    return std::nullopt;
}

}  // namespace detail

LOWRANK_BODY bool is_word_table_name(std::string_view module) {
    constexpr std::array<std::string_view, 8> names{"embed_tokens",   "word_embeddings", "wte",    "embed_in",
                                                    "tok_embeddings", "token_embedding", "shared", "word_embedding"};
    return detail::is_among(detail::last_name(module), names);
}

LOWRANK_BODY bool is_table_name(std::string_view module) {
    constexpr std::array<std::string_view, 8> names{"position_embeddings",   "wpe",
                                                    "embed_positions",       "position_embedding",
                                                    "token_type_embeddings", "type_embeddings",
                                                    "embed_tokens_extend",   "relative_attention_bias"};
    return is_word_table_name(module) || detail::is_among(detail::last_name(module), names);
}

LOWRANK_BODY bool is_head_name(std::string_view module) {
    constexpr std::array<std::string_view, 3> names{"lm_head", "embed_out", "output_projection"};
    return detail::is_among(detail::last_name(module), names);
}

LOWRANK_BODY std::optional<bool> base_facts::stores_in_by_out(std::string_view module) const {
    if (!knows_layers) {
        return std::nullopt;
    }
    return has_conv1d && detail::is_among(detail::last_name(module), detail::conv1d_names);
}

LOWRANK_BODY base_facts facts_of_base(const checkpoint& base) {
    base_facts out;
    std::optional<bool> tied;
    const auto objects = detail::config_beside(base);
    for (std::size_t i = objects ? objects->size() : 0; i-- > 0;) {  // what the document says goes before text_config
        const detail::json& from = (*objects)[i];
        const auto type = from.find("model_type");
        const auto tie = from.find("tie_word_embeddings");
        out.model_type = type != from.end() && type->is_string() ? type->get<std::string>() : out.model_type;
        tied = tie != from.end() && tie->is_boolean() ? std::optional(tie->get<bool>()) : tied;
    }
    const auto by_shape = detail::conv1d_by_shape(base);
    const bool is_conv1d = detail::is_among(out.model_type, detail::conv1d_models);
    out.has_conv1d = by_shape.value_or(is_conv1d);
    out.knows_layers = by_shape || is_conv1d || detail::is_among(out.model_type, detail::linear_models);
    const bool has_head = std::any_of(base.tensors().begin(), base.tensors().end(), [](const checkpoint::place& p) {
        const std::string_view name = p.info->name;
        return name.ends_with(".weight") && is_head_name(name.substr(0, name.size() - 7));
    });
    out.is_tied = tied.value_or(!has_head && detail::is_among(out.model_type, detail::tied_models));
    return out;
}

LOWRANK_BODY std::string quantization_of(const checkpoint& base, std::string_view module) {
    const std::string path(module);
    const auto has = [&](const char* tail) { return base.find(path + tail) != nullptr; };
    const tensor_info* t = base.find(path + ".weight");
    if (has(".weight.absmax") || has(".weight.quant_map")) {
        return "bitsandbytes 4-bit";
    }
    if (has(".SCB") || has(".weight_format")) {
        return "bitsandbytes 8-bit";
    }
    if (has(".qweight")) {
        return has(".g_idx") ? "GPTQ" : "GPTQ or AWQ";
    }
    if (has(".weight_packed")) {
        return "compressed-tensors";
    }
    if (has(".weight_scale") || has(".weight_scale_inv") || has(".scale_weight")) {
        return t != nullptr ? std::string(name_of(t->type)) + " codes with scales" : "codes with scales";
    }
    if (has("_blocks") && has("_scales")) {
        return "MXFP4";
    }
    return t != nullptr && !is_real(t->type) ? std::string(name_of(t->type)) + " codes" : std::string();
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_BASE_FACTS_IPP

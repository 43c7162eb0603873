// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_LLAMA_NAMES_HPP
#define LOWRANK_IO_MODELS_LLAMA_NAMES_HPP

/// \file
/// What differs between a Llama model of transformers and its GGUF: names, and the order of rows of q and k.
///
///     lowrank::gguf_name("model.layers.3.self_attn.q_proj.weight")   // "blk.3.attn_q.weight"
///     lowrank::rope_rows_to_gguf(w, 32)                              // rotate-half rows to interleaved pairs
///
/// Names and permutation as in ggml-org/llama.cpp, its converter for LlamaForCausalLM.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

using name_pair = std::pair<std::string_view, std::string_view>;

/// transformers' names and GGUF's, within a layer and outside.
inline constexpr std::array<name_pair, 9> llama_layer_names{{
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
}};
inline constexpr std::array<name_pair, 3> llama_outer_names{{
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
}};

/// Replaces a name by its partner; `forward` from transformers to GGUF. A ".weight" or ".bias" stays.
[[nodiscard]] inline std::optional<std::string> translate_llama_name(std::string_view name, bool forward) {
    std::string_view suffix;
    for (const std::string_view s : {std::string_view(".weight"), std::string_view(".bias")}) {
        if (name.ends_with(s)) {
            suffix = s;
            name.remove_suffix(s.size());
            break;  // "x.bias.weight" is no other name of "x.bias"
        }
    }
    const auto from = [&](const name_pair& p) { return forward ? p.first : p.second; };
    const auto to = [&](const name_pair& p) { return forward ? p.second : p.first; };
    for (const name_pair& p : llama_outer_names) {
        if (name == from(p)) {
            return std::string(to(p)) + std::string(suffix);
        }
    }
    const std::string_view layer = forward ? "model.layers." : "blk.";
    if (!name.starts_with(layer)) {
        return std::nullopt;
    }
    name.remove_prefix(layer.size());
    std::size_t digits = 0;
    while (digits < name.size() && name[digits] >= '0' && name[digits] <= '9') {
        ++digits;
    }
    if (digits == 0 || digits == name.size() || name[digits] != '.') {
        return std::nullopt;
    }
    for (const name_pair& p : llama_layer_names) {
        if (name.substr(digits + 1) == from(p)) {
            return std::string(forward ? "blk." : "model.layers.") + std::string(name.substr(0, digits + 1)) +
                   std::string(to(p)) + std::string(suffix);
        }
    }
    return std::nullopt;
}

}  // namespace detail

/// The GGUF name of a module or tensor of a Llama model, if it has one.
[[nodiscard]] inline std::optional<std::string> gguf_name(std::string_view hf_name) {
    return detail::translate_llama_name(hf_name, true);
}
/// The way back.
[[nodiscard]] inline std::optional<std::string> hf_name(std::string_view gguf) {
    return detail::translate_llama_name(gguf, false);
}

/// What a config.json says that conversion needs.
struct llama_layout {
    index n_head = 0;
    index n_head_kv = 0;
    bool tied = false;  ///< The output layer is the embedding table.
};

/// Reads the config.json of a Llama model.
[[nodiscard]] inline result<llama_layout> read_llama_layout(const std::filesystem::path& config_json) {
    const auto file = mapped_file::open(config_json, {.map = false});
    if (!file) {
        return file.error();
    }
    const auto config = detail::read_json(file->bytes());
    if (!config) {
        return detail::in_file(config_json, config.error());
    }
    const auto count = [&](const char* key, index otherwise) -> index {
        const auto at = config->is_object() ? config->find(key) : config->end();
        if (at == config->end() || at->is_null()) {
            return otherwise;
        }
        constexpr std::uint64_t most = 1 << 20;
        return at->is_number_unsigned() && at->get<std::uint64_t>() <= most
                   ? static_cast<index>(at->get<std::uint64_t>())
                   : 0;
    };
    llama_layout out;
    out.n_head = count("num_attention_heads", 0);
    out.n_head_kv = count("num_key_value_heads", out.n_head);
    if (out.n_head < 1 || out.n_head_kv < 1) {
        return status{errc::invalid_format,
                      config_json.string() + ": num_attention_heads and num_key_value_heads must be positive integers"};
    }
    const auto tied = config->find("tie_word_embeddings");
    out.tied = tied != config->end() && tied->is_boolean() && tied->get<bool>();
    return out;
}

/// Heads whose rows are permuted in a tensor or module of this GGUF name; 0 for those that are not.
[[nodiscard]] inline index rope_heads_of(std::string_view gguf, const llama_layout& layout) noexcept {
    return gguf.find(".attn_q") != std::string_view::npos   ? layout.n_head
           : gguf.find(".attn_k") != std::string_view::npos ? layout.n_head_kv
                                                            : 0;
}

namespace detail {

template <class D>
[[nodiscard]] row_matrix<typename D::Scalar> permute_rope(const D& w, index heads, bool to_gguf) {
    expects(heads > 0 && w.rows() % (2 * heads) == 0, "rope rows: the rows must be a multiple of twice the heads");
    row_matrix<typename D::Scalar> out(w.rows(), w.cols());
    const index width = w.rows() / heads;
    for (index h = 0; h < heads; ++h) {
        for (index i = 0; i < width / 2; ++i) {
            for (index p = 0; p < 2; ++p) {
                const index hf = h * width + p * (width / 2) + i;
                const index gguf = h * width + 2 * i + p;
                out.row(to_gguf ? gguf : hf) = w.row(to_gguf ? hf : gguf);
            }
        }
    }
    return out;
}

}  // namespace detail

/// Rows of a q or k projection (or of its lora_B or bias) from rotate-half order to interleaved pairs: row
/// h d + p d/2 + i becomes h d + 2 i + p, where d is the size of a head.
/// \pre rows is a multiple of 2 heads.
template <detail::eigen_dense D>
[[nodiscard]] auto rope_rows_to_gguf(const D& w, index heads) {
    return detail::permute_rope(w, heads, true);
}
/// The way back.
template <detail::eigen_dense D>
[[nodiscard]] auto rope_rows_to_hf(const D& w, index heads) {
    return detail::permute_rope(w, heads, false);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_LLAMA_NAMES_HPP

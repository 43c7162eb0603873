// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_ARCHITECTURE_HPP
#define LOWRANK_IO_MODELS_ARCHITECTURE_HPP

/// \file
/// Architectures as data: what the modules and configuration keys of a model are called in transformers and in GGUF.
///
///     const lowrank::architecture& llama = **lowrank::find_architecture("llama");
///     auto module = lowrank::find_module(llama, "model.layers.3.self_attn.q_proj.weight");
///     log(module->gguf.front());                                                  // "blk.3.attn_q.weight"
///
/// Conversions of models and of adapters take a list of these and know no architecture otherwise. A program adds one by
/// passing a list of its own. Names as in ggml-org/llama.cpp, its converters.

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How positions beyond the training length are squeezed into the rotation angles.
struct rope_scaling {
    enum class kind { none, linear, llama3, other };
    kind type = kind::none;
    double factor = 1;
    double low_freq_factor = 1;
    double high_freq_factor = 4;
    double original_max_position_embeddings = 8192;
    std::string name = {};  ///< rope_type of the file, where `type` is `other`.
};

/// The shape of a model. Members have the names of Llama's keys; `config_key` says what other models call them.
struct model_config {
    std::string model_type = "llama";
    std::string hidden_act = "silu";
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
    double partial_rotary_factor = 1;  ///< The part of a head that is rotated.
    rope_scaling scaling = {};
    bool tie_word_embeddings = false;  ///< The output layer is the embedding table.
    bool attention_bias = false;       ///< q, k, v, o carry a bias.
    bool mlp_bias = false;             ///< gate, up, down carry a bias.
    bool is_quantized = false;         ///< quantization_config is set.
    int bos_token_id = 1;
    int eos_token_id = 2;

    [[nodiscard]] index query_size() const noexcept { return num_attention_heads * head_dim; }
    [[nodiscard]] index key_size() const noexcept { return num_key_value_heads * head_dim; }
};

/// How many heads the rows of a weight belong to: one for rows that belong to no heads.
enum class head_count { one, query, key_value };

/// A tensor of GGUF that holds rows of a module.
struct gguf_part {
    std::string name = {};  ///< "attn_q"
    head_count heads = head_count::one;
    bool is_rotary = false;  ///< The rows of a head are halves in transformers and interleaved pairs in GGUF.
};

/// What a module is to its model.
enum class module_role { layer, table, output };

/// A module of transformers and where its rows are in GGUF.
struct architecture_module {
    std::string name = {};                  ///< "self_attn.q_proj"
    std::vector<gguf_part> parts = {};      ///< Several if transformers fuses them; rows in proportion to the heads.
    bool is_in_layer = true;                ///< False for modules that the model has once.
    module_role role = module_role::layer;  ///< A tied output has no weight besides the table.
};

/// A number of the model's shape and its names. One of the two pointers is set.
struct config_key {
    std::string hf = {};    ///< "hidden_size", in config.json
    std::string gguf = {};  ///< "embedding_length", after the architecture and a dot
    index model_config::*count = nullptr;
    double model_config::*number = nullptr;
    bool is_required = false;  ///< A GGUF without it is no model.
};

struct architecture {
    std::string name = {};      ///< model_type of config.json.
    std::string hf_class = {};  ///< The first of `architectures` in config.json.
    std::string gguf = {};      ///< general.architecture, and the prefix of keys.
    std::string hf_layers = "model.layers.";
    std::string gguf_layers = "blk.";
    std::vector<config_key> keys = {};
    std::vector<architecture_module> modules = {};
    std::string hidden_act = "silu";  ///< The activation that engines of this architecture compute.
};

/// Those this library knows: llama, and mistral, which GGUF counts as llama.
LOWRANK_API [[nodiscard]] std::span<const architecture> known_architectures();

/// The architecture of a `model_type`.
/// \return `unsupported` with the names of those that are known.
LOWRANK_API [[nodiscard]] result<const architecture*> find_architecture(
    std::string_view model_type, std::span<const architecture> among = known_architectures());
/// The first architecture of a `general.architecture`; otherwise the same.
LOWRANK_API [[nodiscard]] result<const architecture*> find_gguf_architecture(
    std::string_view name, std::span<const architecture> among = known_architectures());

/// A module or tensor of a model under its names on both sides.
struct module_match {
    const architecture_module* module = nullptr;
    std::string hf = {};
    std::vector<std::string> gguf = {};  ///< One per part.
    std::size_t part = 0;                ///< Which of them was asked for.
};

/// The entry of a module or tensor ("model.layers.3.mlp.up_proj", with ".weight" or ".bias"), if there is one.
LOWRANK_API [[nodiscard]] std::optional<module_match> find_module(const architecture& a, std::string_view hf_name);
/// The same of a name in GGUF.
LOWRANK_API [[nodiscard]] std::optional<module_match> find_gguf_module(const architecture& a, std::string_view name);

/// `unsupported` for a model whose configuration asks for another activation than its architecture has, or for heads that
/// are rotated in part (partial_rotary_factor).
LOWRANK_API [[nodiscard]] status check_activation(const model_config& config, const architecture& a);

/// Heads of a part in a model.
LOWRANK_API [[nodiscard]] index heads_of(const gguf_part& part, const model_config& config);

/// Rows of each part of a module whose weight has `rows` rows.
/// \return `mismatch` if the rows do not divide into the parts, or those of a rotary part not into pairs of its heads.
LOWRANK_API [[nodiscard]] result<std::vector<index>> rows_of_parts(const architecture_module& module,
                                                                   const model_config& config, index rows);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/models/architecture.ipp>
#endif

#endif  // LOWRANK_IO_MODELS_ARCHITECTURE_HPP

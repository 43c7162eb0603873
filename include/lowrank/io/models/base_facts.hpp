// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_BASE_FACTS_HPP
#define LOWRANK_IO_MODELS_BASE_FACTS_HPP

/// \file
/// What a checkpoint and the config.json beside it say of how its weights are to be taken: the orientation of a
/// weight, ties between the table and the head, quantization.
///
///     const lowrank::base_facts facts = lowrank::facts_of_base(*before);
///     log(facts.stores_in_by_out("transformer.h.0.attn.c_attn"));      // true of GPT-2, whatever an adapter's flag says
///
/// huggingface/transformers: Conv1D of GPT-2 and its relatives, tie_word_embeddings.

#include <optional>
#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>

namespace lowrank::inline LOWRANK_ABI {

class checkpoint;

/// Whether a module's last name is that of an embedding table (of words, positions or types); PEFT adapts these
/// transposed.
LOWRANK_API [[nodiscard]] bool is_table_name(std::string_view module);
/// Of the words alone: the table that a head may be tied to.
LOWRANK_API [[nodiscard]] bool is_word_table_name(std::string_view module);
/// Whether a module's last name is that of the layer that gives the logits of words.
LOWRANK_API [[nodiscard]] bool is_head_name(std::string_view module);

struct base_facts {
    std::string model_type = {};  ///< Of config.json; empty where there is none.
    bool is_tied = false;         ///< The head is the table of words.
    bool has_conv1d = false;      ///< c_attn, c_proj, c_fc and q_attn are stored in x out.
    bool knows_layers = false;    ///< The model is one whose layers are known to be Conv1D or not.

    /// How a weight is stored, if that is known of the model.
    LOWRANK_API [[nodiscard]] std::optional<bool> stores_in_by_out(std::string_view module) const;
};

/// Reads config.json in the folder of the checkpoint, if there is one, and looks at the shapes of known layers.
LOWRANK_API [[nodiscard]] base_facts facts_of_base(const checkpoint& base);

/// How the weight of a module is quantized ("bitsandbytes 4-bit"), by its tensors; empty if it is not.
LOWRANK_API [[nodiscard]] std::string quantization_of(const checkpoint& base, std::string_view module);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/models/base_facts.ipp>
#endif

#endif  // LOWRANK_IO_MODELS_BASE_FACTS_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_CONFIG_HPP
#define LOWRANK_IO_PEFT_PEFT_CONFIG_HPP

/// \file
/// The adapter_config.json of an adapter as PEFT reads and writes it.
///
///     std::vector<std::string> warnings;
///     auto config = lowrank::parse_peft_config(bytes, warnings, {});      // adapter_config.json
///     log(config->r_for("model.layers.0.mlp.up_proj"));                   // r, or what rank_pattern says
///
/// Keys, defaults and the rule for patterns follow huggingface/peft. What types say besides follows from the
/// descriptions of their kinds.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/kinds/list.hpp>
#include <lowrank/io/peft/peft_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Keys that are patterns, in order: the first that matches a module's path gives its value.
template <class T>
using module_pattern = std::vector<std::pair<std::string, T>>;

/// Rank and alpha have one name here, whatever the key is called in the file of a type (init_r, alpha).
struct peft_lora_config {
    std::string peft_type = "LORA";  ///< LORA, LOHA, OFT, ...: those of `peft_kinds()`.
    index r = 8;
    double lora_alpha = 8;
    double lora_dropout = 0;
    bool fan_in_fan_out = false;  ///< The base stores in x out (GPT-2's Conv1D); A and B do not change.
    std::string bias = "none";    ///< "none", "all" or "lora_only" ("oft_only", ... of other types).
    std::vector<std::string> target_modules = {};  ///< Names, or empty if `target_pattern` is given.
    std::string target_pattern = {};               ///< A regular expression, or "all-linear".
    module_pattern<index> rank_pattern = {};
    module_pattern<double> alpha_pattern = {};
    /// LoRA of parameters that are no layer's weight: ends of their paths, "mlp.experts.gate_up_proj".
    std::vector<std::string> target_parameters = {};
    std::vector<std::string> modules_to_save = {};
    /// aLoRA: the adapter applies from the last occurrence of these tokens on.
    std::vector<std::int64_t> alora_invocation_tokens = {};
    /// Tokens whose rows of an embedding table are trained by themselves, by the ending of the table's module; under ""
    /// for any.
    std::map<std::string, std::vector<std::int64_t>> trainable_token_indices = {};
    /// Ranges [begin, end) of layers that the base model is made of, if that repeats layers of its checkpoint.
    std::vector<std::pair<std::int64_t, std::int64_t>> layer_replication = {};
    peft_options options = {};  ///< What single types say besides: "use_rslora", block sizes, forms, schedules.
    std::optional<std::string> base_model_name_or_path = {};
    std::optional<std::string> task_type = {};  ///< "CAUSAL_LM", ...
    /// The text this was read from: keys not named here are kept and written again.
    std::string document = {};

    /// The rank of a module: the first key k of rank_pattern for which `(.*\.)?(k)` matches its path, or r.
    /// \pre the keys are valid patterns, as after `parse_peft_config`.
    LOWRANK_API [[nodiscard]] index r_for(std::string_view module) const;
    /// The same for lora_alpha.
    LOWRANK_API [[nodiscard]] double alpha_for(std::string_view module) const;
};

struct peft_read_options {
    /// Accept an adapter whose initialization changed the base weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA, KaSA): the
    /// caller's base is that changed one.
    bool base_is_residual = false;
    /// Accept an adapter that applies only from its invocation tokens on (aLoRA): the caller sees to it.
    bool activated_by_tokens = false;
    /// Accept an adapter for a model that repeats layers of its checkpoint (layer_replication): the caller's base is
    /// that model. Module names count the repeated layers.
    bool replicated_layers = false;
    /// Leave out modules with a part that is not known, with a warning for each, instead of failing.
    bool skip_unsupported = false;
    /// The kinds that are read.
    peft_kind_list kinds = peft_kinds();
};

/// Reads the text of an adapter_config.json. Unknown keys are named in `warnings` and kept.
///
/// \return `invalid_format` naming the key that is wrong; `unsupported` naming the key of a feature that would change
///         the result (aLoRA, QA-LoRA, ...), another adapter type, or a pattern that is not understood.
LOWRANK_API [[nodiscard]] result<peft_lora_config> parse_peft_config(std::span<const std::byte> text,
                                                                     std::vector<std::string>& warnings,
                                                                     const peft_read_options& opt = {});

/// The text of an adapter_config.json: keys sorted, two spaces, as PEFT writes it. Values that are as they were read
/// keep their spelling.
/// \pre peft_type is one of `kinds`.
LOWRANK_API [[nodiscard]] std::string format_peft_config(const peft_lora_config& config,
                                                         peft_kind_list kinds = peft_kinds());

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/peft_config.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_PEFT_CONFIG_HPP

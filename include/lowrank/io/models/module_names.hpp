// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_MODULE_NAMES_HPP
#define LOWRANK_IO_MODELS_MODULE_NAMES_HPP

/// \file
/// The modules of a model, found under the names that other tools give them.
///
///     const lowrank::module_names names({"model.language_model.layers.0.mlp.up_proj"});
///     log(*names.find("model.layers.0.mlp.up_proj"));        // the one above: a known wrapper is between them
///     log(names.find_flat("lora_unet_blocks_0_attn"));       // kohya's names, which have lost their dots
///
/// A name means a module if it is the same, or is the same once known wrappers (`module.`, `_orig_mod.`,
/// `base_model.model.`, `model.language_model.`, `transformer.`, ...) are taken off both. No part of a name is otherwise
/// left out: `mid_block.to_k` is never `to_k`.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>

namespace lowrank::inline LOWRANK_ABI {

class checkpoint;

namespace detail {

/// A path without the wrappers before it and between its parts: "layers.0.x" of "model.language_model.layers.0.x".
LOWRANK_API [[nodiscard]] std::string plain_path(std::string_view path);

/// A path with underscores for its dots.
LOWRANK_API [[nodiscard]] std::string flat_path(std::string path);

}  // namespace detail

/// The modules of a base by the names that others may give them.
class module_names {
public:
    module_names() = default;
    LOWRANK_API explicit module_names(std::vector<std::string> modules);

    [[nodiscard]] bool empty() const noexcept { return modules_.empty(); }
    [[nodiscard]] const std::vector<std::string>& all() const noexcept { return modules_; }

    /// The module of the base that a dotted path means.
    /// \return `not_found` with the nearest name; `mismatch` if it may mean several.
    LOWRANK_API [[nodiscard]] result<std::string> find(std::string_view path) const;

    /// The module of the base that a name with underscores for dots means, after one of the known prefixes
    /// (`lora_unet_`, `lora_te_`, `lora_te1_`, `lora_transformer_`, `lycoris_`, ...) or without. \return as `find`.
    LOWRANK_API [[nodiscard]] result<std::string> find_flat(std::string_view name) const;

    /// As `find` and `find_flat`, for names that may well be missing: nothing then, and nothing for one that may mean
    /// several. Looking for the nearest name is what a failure costs.
    LOWRANK_API [[nodiscard]] std::optional<std::string> find_if_there(std::string_view path) const;
    LOWRANK_API [[nodiscard]] std::optional<std::string> find_flat_if_there(std::string_view name) const;

private:
    using groups = std::map<std::string, std::vector<std::size_t>, std::less<>>;
    LOWRANK_API [[nodiscard]] result<std::string> found(const groups& by, std::string_view key,
                                                        std::string_view name) const;
    /// `not_found` without a text where there is none.
    LOWRANK_API [[nodiscard]] result<std::string> look_up(std::string_view path) const;
    /// `rest` is what is left of the name without prefixes.
    LOWRANK_API [[nodiscard]] result<std::string> look_up_flat(std::string_view name, std::string_view& rest) const;

    std::vector<std::string> modules_ = {};
    groups paths_ = {};       ///< By the path itself.
    groups plain_ = {};       ///< By the path without wrappers.
    groups flat_paths_ = {};  ///< The same two with underscores for dots.
    groups flat_plain_ = {};
};

/// The modules of a checkpoint: its tensors' names without `.weight`, `.qweight` or whatever else holds the weight, and its
/// stacks of experts (`mlp.experts.gate_up_proj`).
LOWRANK_API [[nodiscard]] module_names modules_of(const checkpoint& base);

/// "the names of the adapter begin with "model.", those of the base with "model.language_model."": what `find` took off.
LOWRANK_API [[nodiscard]] std::string wrapper_in_words(std::string_view name, std::string_view module);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/models/module_names.ipp>
#endif

#endif  // LOWRANK_IO_MODELS_MODULE_NAMES_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_MODULES_HPP
#define LOWRANK_IO_PEFT_PEFT_MODULES_HPP

/// \file
/// What a module of a PEFT adapter does to a weight, and how it becomes an adapter that serves.
///
///     for (const auto& [path, module] : poet->modules) {
///         const lowrank::peft_change change = lowrank::change_of(module);               // of the weight, of the bias
///         auto a = lowrank::to_any_adapter(module, {.out = 4096, .in = 4096});          // applies, trains, merges
///     }
///
/// Everything here follows from the descriptions in kinds/.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/kinds/list.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/any_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// "LoRA", "LoHa", ...: for messages.
[[nodiscard]] inline std::string kind_of(const peft_module& module) {
    return std::string(module.kind().label(module.data()));
}

/// What peft_type a module needs (it may have an older name besides); empty for what PEFT's files cannot hold, and for
/// tensors of adapters of any type.
LOWRANK_API [[nodiscard]] std::string_view type_of(const peft_module& module);

/// Whether modules of a peft_type may be such.
LOWRANK_API [[nodiscard]] bool is_of_type(const peft_module& module, std::string_view type);

/// The shape of the weight that a module is for, as far as its tensors say it; 0 where they do not.
[[nodiscard]] inline module_shape shape_of(const peft_module& module) { return module.kind().shape(module.data()); }

/// Whether a module adapts an embedding table.
[[nodiscard]] inline bool is_table_module(const peft_module& module) { return shape_of(module).is_table; }

/// Tells a module the shape of its weight (of a convolution: out x (in * taps)).
/// \return `mismatch`, with the module as it was, if it is for another shape. Types that know their shape from their
///         tensors are compared with the weight where they are used.
LOWRANK_API [[nodiscard]] status fit_module(peft_module& module, index out, index in);

/// What a module does to a weight of the shape that `fit_module` has told it. Of a type that still lacks its shape
/// nothing is said (`is_unknown`).
/// \cost copies the factors; some kinds form theirs, rotations b^3 a block.
[[nodiscard]] inline peft_change change_of(const peft_module& module) { return module.kind().change(module.data()); }

/// Columns of the factors that `change_of` forms where they are larger than the parameters; 0 of kinds whose factors are
/// their own.
[[nodiscard]] inline index formed_rank(const peft_module& module) {
    return module.kind().formed_rank != nullptr ? module.kind().formed_rank(module.data()) : 0;
}

/// The same without large factors: a module whose factors would be of a rank above an eighth of the weight's shorter
/// side adds rows that are formed when they are needed. \cost copies the parameters.
LOWRANK_API [[nodiscard]] peft_change change_without_factors(const peft_module& module);

/// The numbers a module trains. What all modules share is frozen and not counted.
LOWRANK_API [[nodiscard]] std::uint64_t parameter_count(const peft_module& module);

/// The module as an adapter of a linear layer, ready to be refreshed with its weight.
/// \return `mismatch` for a weight of another shape; `unsupported` for what is more than a linear layer's (a
///         convolution, a table, a bias on lora_B) and for kinds that can only be merged or are not
///         among `kinds`.
LOWRANK_API [[nodiscard]] result<any_adapter<float>> to_any_adapter(peft_module module, const adapted_weight& weight,
                                                                    peft_application_list kinds = peft_applications());

/// An adapter as the module that `write_peft` writes; nothing for a kind that none of `kinds` describes.
LOWRANK_API [[nodiscard]] std::optional<peft_module> to_peft_module(const any_adapter<float>& adapter,
                                                                    peft_application_list kinds = peft_applications());

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/peft_modules.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_PEFT_MODULES_HPP

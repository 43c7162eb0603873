// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_HPP
#define LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_HPP

/// \file
/// From an adapter file to serving: every module of it as an `any_adapter` that fits its layer.
///
///     const auto weight_of = [&](const std::string& module) -> lowrank::result<lowrank::adapted_weight> {
///         return lowrank::adapted_weight{.out = rows_of(module), .in = cols_of(module)};
///     };
///     auto adapters = lowrank::to_any_adapters(*lowrank::read_peft("poet"), weight_of);
///     for (auto& [module, a] : *adapters) a.refresh(lowrank::as_operator(w));    // its weight, once; then add_product

#include <functional>
#include <map>
#include <string>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/any_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Adapters of linear layers by module path.
using adapters_by_module = std::map<std::string, any_adapter<float>>;

/// The linear layer that a module path names, or why there is none.
using find_adapted_weight = std::function<result<adapted_weight>(const std::string& module)>;

/// All modules of an adapter. Nothing is left out in silence. A stack of experts (target_parameters) is one adapter for
/// each, "<parameter>.<expert>" out x in.
/// \return what `weight_of` says of a module that it does not know; `mismatch` for a layer of another shape;
///         `unsupported`, naming it, for what is no adapter of a linear layer: convolutions, embedding tables, tensors
///         that replace ones of the base, adapters that apply from their invocation tokens on, kinds that only merge.
LOWRANK_API [[nodiscard]] result<adapters_by_module> to_any_adapters(const peft_adapter& adapter,
                                                                     const find_adapted_weight& weight_of,
                                                                     peft_application_list kinds = peft_applications());

/// Puts a trained adapter where `write_peft` expects the module of that name.
/// \return `unsupported` for a kind that none of `kinds` describes.
LOWRANK_API [[nodiscard]] status put_module(peft_adapter& to, const std::string& module,
                                            const any_adapter<float>& adapter,
                                            peft_application_list kinds = peft_applications());

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/to_any_adapters.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_HPP

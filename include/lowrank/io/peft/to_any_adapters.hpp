// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_HPP
#define LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_HPP

/// \file
/// From an adapter file to serving: every module of it as an `any_adapter` that fits its layer.
///
///     auto adapters = lowrank::to_any_adapters(*lowrank::read_peft("poet"), [&](const std::string& module) {
///         return lowrank::result<lowrank::adapted_weight>({.out = engine.rows(module), .in = engine.cols(module)});
///     });
///     for (auto& [module, a] : *adapters) a.refresh(engine.weight(module));        // once, then add_product

#include <functional>
#include <map>
#include <string>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/any_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Adapters of linear layers by module path.
using adapters_by_module = std::map<std::string, any_adapter<float>>;

/// The linear layer that a module path names, or why there is none.
using find_adapted_weight = std::function<result<adapted_weight>(const std::string& module)>;

/// All modules of an adapter. Nothing is left out in silence.
/// \return what `weight_of` says of a module that it does not know; `mismatch` for a layer of another shape;
///         `unsupported`, naming it, for what is no adapter of a linear layer: convolutions, embedding tables, tensors
///         that replace ones of the base, adapters that apply from their invocation tokens on, kinds that only merge.
LOWRANK_API [[nodiscard]] result<adapters_by_module> to_any_adapters(const peft_adapter& adapter,
                                                                     const find_adapted_weight& weight_of) {
    if (!adapter.extra.empty()) {
        return status{errc::unsupported, "the adapter also replaces " + adapter.extra.front().name +
                                             ", which is not an adapter of a layer; merge it instead"};
    }
    if (!adapter.embeddings.empty()) {
        return status{errc::unsupported, "the adapter changes the embedding table " +
                                             adapter.embeddings.begin()->first + "; merge it and use the merged model"};
    }
    if (!adapter.config.alora_invocation_tokens.empty()) {
        return status{errc::unsupported,
                      "the adapter applies only from its invocation tokens on (aLoRA): see alora.hpp"};
    }
    adapters_by_module out;
    const auto add = [&](const std::string& module, peft_module stored) -> status {
        const auto weight = weight_of(module);
        if (!weight) {
            return weight.error();
        }
        auto made = to_any_adapter(std::move(stored), *weight);
        if (!made) {
            return detail::in_context("module " + detail::in_quotes(module), made.error());
        }
        out.emplace(module, std::move(*made));
        return {};
    };
    for (const auto& [module, lora] : adapter.modules) {
        if (status why = add(module, peft_lora{.lora = lora}); !why) {
            return why;
        }
    }
    for (const auto& [module, stored] : adapter.relatives) {
        if (status why = add(module, stored); !why) {
            return why;
        }
    }
    return out;
}

/// Puts a trained adapter where `write_peft` expects the module of that name.
/// \return `unsupported` for a kind that PEFT's files cannot hold.
LOWRANK_API [[nodiscard]] status put_module(peft_adapter& to, const std::string& module,
                                            const any_adapter<float>& adapter) {
    auto made = to_peft_module(adapter);
    if (!made) {
        return {errc::unsupported, "module " + detail::in_quotes(module) + ": a file of PEFT cannot hold a " +
                                       std::string(adapter.kind()) + " adapter"};
    }
    const auto* lora = std::get_if<peft_lora>(&*made);
    if (lora != nullptr && lora->magnitude.size() == 0) {
        to.modules.insert_or_assign(module, lora->lora);
    } else {
        to.relatives.insert_or_assign(module, std::move(*made));
    }
    return {};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_HPP

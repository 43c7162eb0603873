// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_IPP
#define LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_IPP

#include <lowrank/io/peft/to_any_adapters.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY result<adapters_by_module> to_any_adapters(const peft_adapter& adapter,
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

LOWRANK_BODY status put_module(peft_adapter& to, const std::string& module, const any_adapter<float>& adapter) {
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

#endif  // LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_IPP

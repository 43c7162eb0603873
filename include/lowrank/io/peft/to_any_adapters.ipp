// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_IPP
#define LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_IPP

#include <lowrank/io/peft/to_any_adapters.hpp>

#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY result<adapters_by_module> to_any_adapters(const peft_adapter& adapter,
                                                        const find_adapted_weight& weight_of,
                                                        peft_application_list kinds) {
    if (const tensor_to_write* t = first_stored_tensor(adapter)) {
        return status{errc::unsupported, "the adapter also replaces " + t->name +
                                             ", which is not an adapter of a layer; merge it instead"};
    }
    if (!adapter.config.alora_invocation_tokens.empty()) {
        return status{errc::unsupported,
                      "the adapter applies only from its invocation tokens on (aLoRA): see alora.hpp"};
    }
    adapters_by_module out;
    for (const auto& [path, module] : adapter.modules) {
        if (is_plain_table(module)) {
            return status{errc::unsupported,
                          "the adapter changes the embedding table " + path + "; merge it and use the merged model"};
        }
        if (const auto* experts = module.template get<peft_experts>()) {
            for (index e = 0; e < experts->lora.experts; ++e) {
                const std::string one = path + "." + std::to_string(e);
                const auto weight = weight_of(one);
                if (!weight) {
                    return weight.error();
                }
                if (weight->out != experts->lora.rows() || weight->in != experts->lora.cols()) {
                    return status{errc::mismatch, "expert " + detail::in_quotes(one) + " is for a weight of " +
                                                      std::to_string(experts->lora.rows()) + " x " +
                                                      std::to_string(experts->lora.cols()) + ", the layer has " +
                                                      std::to_string(weight->out) + " x " + std::to_string(weight->in)};
                }
                out.emplace(one, any_adapter<float>(experts->lora.expert(e)));
            }
            continue;
        }
        const auto weight = weight_of(path);
        if (!weight) {
            return weight.error();
        }
        auto made = to_any_adapter(module, *weight, kinds);
        if (!made) {
            return detail::in_context("module " + detail::in_quotes(path), made.error());
        }
        out.emplace(path, std::move(*made));
    }
    return out;
}

LOWRANK_BODY status put_module(peft_adapter& to, const std::string& module, const any_adapter<float>& adapter,
                               peft_application_list kinds) {
    auto made = to_peft_module(adapter, kinds);
    if (!made) {
        return {errc::unsupported, "module " + detail::in_quotes(module) + ": a file of PEFT cannot hold a " +
                                       std::string(adapter.kind()) + " adapter"};
    }
    to.modules.insert_or_assign(module, std::move(*made));
    return {};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_TO_ANY_ADAPTERS_IPP

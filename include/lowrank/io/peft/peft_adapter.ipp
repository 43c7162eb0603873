// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_ADAPTER_IPP
#define LOWRANK_IO_PEFT_PEFT_ADAPTER_IPP

#include <lowrank/io/peft/peft_adapter.hpp>

#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY status check_plain_lora(const peft_adapter& adapter) {
    for (const auto& [path, module] : adapter.modules) {
        if (!is_plain_lora(module) && stored_tensor(module) == nullptr) {
            return {errc::unsupported, "module " + detail::in_quotes(path) + " is adapted by " + kind_of(module) +
                                           ", only plain LoRA can be used here"};
        }
    }
    return {};
}

LOWRANK_BODY std::map<std::string, lora_adapter<float>> lora_layers(const peft_adapter& adapter) {
    std::map<std::string, lora_adapter<float>> out;
    for (const auto& [path, module] : adapter.modules) {
        if (is_plain_lora(module) && !is_table_module(module)) {
            out.emplace(path, lora_of(module));
        }
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_ADAPTER_IPP

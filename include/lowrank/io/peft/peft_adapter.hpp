// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_ADAPTER_HPP
#define LOWRANK_IO_PEFT_PEFT_ADAPTER_HPP

/// \file
/// A PEFT adapter as a value.
///
///     lowrank::peft_adapter made;
///     made.modules.insert_or_assign("model.layers.0.self_attn.q_proj", lowrank::make_lora<float>(out, in, {.r = 8}));
///     made.config = lowrank::peft_config_for(made);            // peft.hpp, which reads and writes it
///     const auto& lora = lowrank::lora_of(made.modules.at("model.layers.0.self_attn.q_proj"));

#include <map>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/kinds/whole_tensor.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An adapter of a whole model.
struct peft_adapter {
    peft_lora_config config = {};
    /// What changes each module, by its path. W' = W + delta with W out x in; if `config.fan_in_fan_out`, the stored
    /// weight is W^T. The table (tokens x dim) of an embedding changes by delta^T. Tensors that replace ones of the base
    /// (`whole_tensor`, `token_rows`) have the path of the parameter.
    std::map<std::string, peft_module> modules = {};
    /// Storage types of tensors that are not F32, by module and leaf ("l0.q_proj.lora_A.weight"); writing returns to them.
    std::map<std::string, dtype> types = {};
    std::map<std::string, std::string> metadata = {{"format", "pt"}};
    /// What the reader noticed and the user may want to know.
    std::vector<std::string> warnings = {};
};

/// `unsupported`, naming a module, unless every module is plain LoRA of a layer or an embedding table. Tensors that
/// replace ones of the base are passed over.
LOWRANK_API [[nodiscard]] status check_plain_lora(const peft_adapter& adapter);

/// The layers that plain LoRA adapts, for programs that use that alone.
LOWRANK_API [[nodiscard]] std::map<std::string, lora_adapter<float>> lora_layers(const peft_adapter& adapter);

/// The first tensor of an adapter that replaces one of the base, or rows of one; null if there is none.
[[nodiscard]] inline const tensor_to_write* first_stored_tensor(const peft_adapter& adapter) {
    for (const auto& [path, module] : adapter.modules) {
        if (const tensor_to_write* t = stored_tensor(module)) {
            return t;
        }
    }
    return nullptr;
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/peft_adapter.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_PEFT_ADAPTER_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_ADAPTER_HPP
#define LOWRANK_IO_PEFT_PEFT_ADAPTER_HPP

/// \file
/// A PEFT adapter as a value.
///
///     lowrank::peft_adapter made;
///     made.modules["model.layers.0.self_attn.q_proj"] = lowrank::make_lora<float>(out, in, {.r = 8});
///     made.config = lowrank::peft_config_for(made);            // peft.hpp, which reads and writes it
///
/// Plain LoRA, which most programs use, has maps of its own; DoRA, convolutions and the other types are in `relatives`.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An adapter of a whole model. A module is in one of the three maps.
struct peft_adapter {
    peft_lora_config config = {};
    /// By module path. W' = W + delta with W out x in; if `config.fan_in_fan_out`, the stored weight is W^T.
    std::map<std::string, lora_adapter<float>> modules = {};
    /// Adapters of embedding tables: A is r x tokens, B is dim x r, and the table (tokens x dim) changes by delta^T.
    std::map<std::string, lora_adapter<float>> embeddings = {};
    /// What is more than two matrices: DoRA, a bias on lora_B, convolutions, and every type but LORA.
    std::map<std::string, peft_module> relatives = {};
    /// Tensors that replace ones of the base (modules_to_save, trained biases), by their name in the file.
    std::vector<tensor_to_write> extra = {};
    /// The storage types of A and B, for modules where one is not F32; writing returns to them.
    std::map<std::string, std::pair<dtype, dtype>> factor_types = {};
    /// The same for tensors of `relatives`, by module and the rest of their name.
    std::map<std::string, dtype> relative_types = {};
    std::map<std::string, std::string> metadata = {{"format", "pt"}};
    /// What the reader noticed and the user may want to know.
    std::vector<std::string> warnings = {};
};

/// `unsupported`, naming a module, unless every module is plain LoRA: for programs that use `modules` and `embeddings`
/// alone.
LOWRANK_INLINE [[nodiscard]] status check_plain_lora(const peft_adapter& adapter) {
    if (adapter.relatives.empty()) {
        return {};
    }
    const auto& [module, relative] = *adapter.relatives.begin();
    return {errc::unsupported, "module " + detail::in_quotes(module) + " is adapted by " + kind_of(relative) +
                                   ", only plain LoRA can be used here"};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_ADAPTER_HPP

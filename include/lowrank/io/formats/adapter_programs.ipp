// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ADAPTER_PROGRAMS_IPP
#define LOWRANK_IO_FORMATS_ADAPTER_PROGRAMS_IPP

#include <lowrank/io/formats/adapter_programs.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The largest value that vLLM takes for max_lora_rank.
inline constexpr index vllm_rank_limit = 512;

/// vLLM reads lora_alpha, r and use_rslora of adapter_config.json alone, one scaling for all modules.
/// vllm-project/vllm, vllm/lora/peft_helper.py and vllm/config/lora.py.
LOWRANK_API [[nodiscard]] status vllm_applies(const peft_adapter& adapter, const std::string& path,
                                              const peft_module& module) {
    const auto refused = [&](const std::string& why) {
        return status{errc::unsupported, "module " + in_quotes(path) + " " + why};
    };
    if (!adapter.config.alora_invocation_tokens.empty()) {
        return refused("applies from the invocation tokens on (aLoRA); vLLM would apply it everywhere");
    }
    if (stored_tensor(module) != nullptr) {
        return refused("is saved whole, and vLLM takes no modules_to_save; merge the adapter and serve the result");
    }
    if (!is_plain_lora(module)) {
        return refused("is adapted by " + kind_of(module) + "; vLLM applies plain LoRA alone");
    }
    const lora_adapter<float>& lora = lora_of(module);
    if (lora.rank() > vllm_rank_limit) {
        return refused("has rank " + std::to_string(lora.rank()) + ", more than the " +
                       std::to_string(vllm_rank_limit) + " of vLLM; resize it");
    }
    const double own = lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora);
    const double common =
        lora_scaling(adapter.config.lora_alpha, adapter.config.r, adapter.config.options.get<bool>("use_rslora"));
    if (own != common) {
        return refused("has scaling " + number_in_words(own) + "; vLLM scales every module by the " +
                       number_in_words(common) + " of lora_alpha and r");
    }
    return {};
}

}  // namespace detail

LOWRANK_BODY std::span<const adapter_program> adapter_programs() {
    static const adapter_program all[] = {{.name = "PEFT", .format = "peft"},
                                          {.name = "llama.cpp", .format = "gguf"},
                                          {.name = "vLLM", .format = "peft", .applies = &detail::vllm_applies},
                                          {.name = "kohya, ComfyUI", .format = "kohya"},
                                          {.name = "MLX", .format = "mlx"}};
    return all;
}

LOWRANK_BODY program_support support_by(const adapter_program& program, const peft_adapter& adapter,
                                        const adapter_write_options& opt, std::span<const adapter_format> among) {
    const auto format = find_adapter_format(program.format, among);
    detail::expects(static_cast<bool>(format), "support_by: the format of the program must be in the list");
    status all = detail::check_invocation_tokens(**format, adapter.config);
    if (all && (*format)->needs_model && opt.model == nullptr) {
        all = {errc::unsupported, "a " + std::string((*format)->name) + " file needs the config.json of the base"};
    }
    program_support out;
    for (const auto& [path, module] : adapter.modules) {
        status why = all;
        if (why) {
            why = can_hold(**format, path, module, opt);
        }
        if (why && program.applies != nullptr) {
            why = program.applies(adapter, path, module);
        }
        why ? void(++out.held) : void(out.lost.emplace_back(path, std::move(why)));
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_ADAPTER_PROGRAMS_IPP

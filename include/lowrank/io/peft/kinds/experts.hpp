// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_EXPERTS_HPP
#define LOWRANK_IO_PEFT_KINDS_EXPERTS_HPP

/// \file
/// LoRA of a bare parameter in an adapter of PEFT (target_parameters): the experts of a mixture, stacked in one tensor.
///
///     const auto* m = poet->modules.at("model.layers.0.mlp.experts.down_proj").get<lowrank::peft_experts>();
///     if (m != nullptr) use(m->lora.expert(3).delta());
///
/// The file names the module that has the parameter, not the parameter. Where a module has several, its wrappers nest
/// in the order in which the module declares them, the first one innermost (`experts.base_layer.lora_A.weight`). Names
/// and shapes follow huggingface/peft.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/kinds/lora_forms/expert_lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Where a parameter stands: `<module>.<parameter>` of the model, `<module>` and `.base_layer` `depth` times in the file.
struct parameter_place {
    std::string module = {};
    std::string parameter = {};  ///< Empty if neither the file nor its configuration tell which of `may_be` it is.
    std::vector<std::string> may_be = {};
    index depth = 0;  ///< Wrappers of other parameters of the module around this one.

    /// How the tensors of the file begin.
    [[nodiscard]] std::string path_in_file() const {
        std::string path = module;
        for (index i = 0; i < depth; ++i) {
            path += ".base_layer";
        }
        return path;
    }
    /// The paths that the parameter has or may have.
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> all;
        for (const std::string& name : parameter.empty() ? may_be : std::vector<std::string>{parameter}) {
            all.push_back(module + "." + name);
        }
        return all;
    }
    /// The key of the module in an adapter: the parameter's path, or the file's where that is not known.
    [[nodiscard]] std::string path() const { return parameter.empty() ? path_in_file() : module + "." + parameter; }
};

/// LoRA of a parameter: one adapter for each expert, or one alone.
struct peft_experts {
    expert_lora<float> lora = {};
    parameter_place place = {};
};

template <>
struct peft_kind<peft_experts> {
    using module = peft_experts;
    static constexpr bool is_second_form = true;
    static std::vector<peft_type> types() { return peft_kind<lora_adapter<float>>::types(); }
    static const char* label(const module&) { return "LoRA of experts"; }
    static module_shape shape(const module& m) { return {m.lora.experts * m.lora.rows(), m.lora.cols()}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.lora.rank(), m.lora.lora_alpha}; }
    /// Of the stack as one matrix, (experts out) x in.
    static peft_change change(const module& m) { return {.weight = m.lora.change()}; }
    static void write(const module& m, peft_tensors& to) {
        peft_kind<lora_adapter<float>>::write({.lora_A = m.lora.lora_A, .lora_B = m.lora.lora_B}, to);
    }
    static std::string path_in_file(const std::string&, const module& m) { return m.place.path_in_file(); }
    LOWRANK_API static void fit_options(peft_options& o, const std::vector<std::string>&,
                                        std::span<const module* const> all);
    static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return m.lora.use_rslora != o.get<bool>("use_rslora") ? "use_rslora" : nullptr;
    }
    LOWRANK_API static result<any_adapter<float>> adapter(const module& m, const adapted_weight& w);
    static std::optional<module> from(const any_adapter<float>&) { return std::nullopt; }
};

namespace detail {

/// LoRA of one expert as a layer of its own: the rows of one of the equal `parts` of its outputs. `turned` for stacks
/// whose A and B have exchanged their sides.
LOWRANK_API [[nodiscard]] lora_adapter<float> lora_of_expert(const expert_lora<float>& stack, index e, index part,
                                                             index parts, bool turned);

/// The module of a parameter from its tensors: plain LoRA where the parameter is the weight of a layer.
LOWRANK_API [[nodiscard]] peft_module join_experts(peft_parts& p, const peft_context& c, const parameter_place& place);

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/kinds/experts.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_KINDS_EXPERTS_HPP

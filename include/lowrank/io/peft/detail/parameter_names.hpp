// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PARAMETER_NAMES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PARAMETER_NAMES_HPP

/// \file
/// Which parameters the modules of an adapter file stand for (target_parameters).
///
///     const auto places = detail::parameters_of(config.target_parameters, modules);
///     places.at("model.layers.0.mlp.experts.base_layer").parameter                        // "gate_up_proj"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/io/models/expert_names.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The parameters of a module that the targets name: each `<end of the module's path>.<parameter>`, or the parameter
/// alone.
LOWRANK_INLINE [[nodiscard]] std::vector<std::string> targeted_parameters(std::string_view module,
                                                                          const std::vector<std::string>& targets) {
    std::vector<std::string> out;
    for (const std::string_view target : targets) {
        const std::size_t dot = target.rfind('.');
        const std::string_view owner = dot == std::string_view::npos ? std::string_view() : target.substr(0, dot);
        const bool ends =
            module.size() > owner.size() && module.ends_with(owner) && module[module.size() - owner.size() - 1] == '.';
        const std::string name(target.substr(dot + 1));  // npos + 1 is 0: all of it
        if ((owner.empty() || module == owner || ends) && !name.empty() &&
            std::find(out.begin(), out.end(), name) == out.end()) {
            out.push_back(name);
        }
    }
    return out;
}

/// True if factors of these shapes can be those of the two halves of a gated unit: half of what the first puts out goes
/// into the second. Releases of PEFT before 0.19 exchanged the sides of both.
LOWRANK_INLINE [[nodiscard]] bool are_gated_unit(const peft_parts& first, const peft_parts& second) {
    const auto size = [](const peft_parts& p, std::string_view leaf, std::size_t dimension) {
        const tensor_info* t = p.find(leaf);
        return t != nullptr && t->shape.size() == 2 ? t->shape[dimension] : std::uint64_t{0};
    };
    const auto feeds = [](std::uint64_t out, std::uint64_t in) { return in != 0 && in == out / 2 && out % 2 == 0; };
    return feeds(size(first, "lora_B.weight", 0), size(second, "lora_A.weight", 1)) ||
           feeds(size(first, "lora_A.weight", 1), size(second, "lora_B.weight", 0));
}

/// The places of the modules that stand for parameters, by their path in the file.
LOWRANK_INLINE [[nodiscard]] std::map<std::string, parameter_place> parameters_of(
    const std::vector<std::string>& targets, const std::map<std::string, peft_parts, std::less<>>& modules) {
    constexpr std::string_view wrapper = ".base_layer";
    std::map<std::string, parameter_place> out;
    std::map<std::string, std::vector<const peft_parts*>> wrappers;  // by module, in the order of their depth
    for (const auto& [path, parts] : modules) {                      // sorted: a module before what it wraps
        parameter_place place{.module = path};
        while (place.module.ends_with(wrapper)) {
            place.module.resize(place.module.size() - wrapper.size());
            ++place.depth;
        }
        place.may_be = targeted_parameters(place.module, targets);
        if (!place.may_be.empty()) {
            wrappers[place.module].push_back(&parts);
            out.emplace(path, std::move(place));
        }
    }
    for (auto& [path, place] : out) {
        const auto& all = wrappers.at(place.module);
        auto names = place.may_be;
        std::sort(names.begin(), names.end());
        if (all.size() == 1 && names.size() == 1) {
            place.parameter = names.front();
        } else if (all.size() == 2 && names.size() == 2 && names[0] == fused_down && names[1] == fused_gate_up) {
            const bool usual = are_gated_unit(*all[1], *all[0]), turned = are_gated_unit(*all[0], *all[1]);
            if (usual || turned) {
                place.parameter = (place.depth == 1) == usual ? fused_gate_up : fused_down;
            }
        }
    }
    return out;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PARAMETER_NAMES_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_EXPERT_NAMES_HPP
#define LOWRANK_IO_MODELS_EXPERT_NAMES_HPP

/// \file
/// How mixtures of experts name and store their experts: each by itself, or all in one tensor with gate and up fused.
///
///     const auto part = lowrank::find_expert_part("model.layers.0.mlp.experts.7.up_proj");
///     if (part) use(part->stack, part->expert);      // "model.layers.0.mlp.experts.gate_up_proj", 7
///
/// transformers from release 5 on fuses the experts of most models while it loads them; files on the hub keep one
/// tensor for each. Names and orders follow huggingface/transformers.

#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What a model calls the three weights of one expert.
struct expert_names {
    std::string_view gate = {};
    std::string_view up = {};
    std::string_view down = {};
};

/// The spellings there are; the second is Mixtral's.
inline constexpr std::array<expert_names, 2> known_expert_names = {
    {{"gate_proj", "up_proj", "down_proj"}, {"w1", "w3", "w2"}}};

/// What the two stacks are called where the experts are fused, in the order in which a module declares them.
inline constexpr std::string_view fused_gate_up = "gate_up_proj";
inline constexpr std::string_view fused_down = "down_proj";

/// One weight of one expert, and its place in the fused stack.
struct expert_part {
    std::string stack = {};  ///< Path of the fused parameter.
    index expert = 0;
    bool is_fused = false;  ///< It is half of the stack's outputs: gate and up.
    bool is_up = false;     ///< The second half.
};

/// What a path `<module>.<expert>.<name>` means; nothing for other paths.
[[nodiscard]] inline std::optional<expert_part> find_expert_part(std::string_view path) {
    const std::size_t leaf = path.rfind('.');
    const std::size_t number = leaf == path.npos || leaf == 0 ? path.npos : path.rfind('.', leaf - 1);
    if (number == path.npos || number == 0 || leaf - number < 2 || leaf - number > 7) {
        return std::nullopt;
    }
    expert_part out;
    int expert = 0;
    const auto [end, error] = std::from_chars(path.data() + number + 1, path.data() + leaf, expert);
    if (error != std::errc() || end != path.data() + leaf || expert < 0) {
        return std::nullopt;
    }
    out.expert = expert;
    const std::string_view name = path.substr(leaf + 1);
    for (const expert_names& names : known_expert_names) {
        if (name == names.gate || name == names.up || name == names.down) {
            out.is_fused = name != names.down;
            out.is_up = name == names.up;
            out.stack =
                std::string(path.substr(0, number + 1)) + std::string(out.is_fused ? fused_gate_up : fused_down);
            return out;
        }
    }
    return std::nullopt;
}

/// Whether a model of this type stores its stacks experts x in x out; the others store experts x out x in.
[[nodiscard]] inline bool stores_experts_in_by_out(std::string_view model_type) {
    return model_type == "gpt_oss" || model_type == "llama4" || model_type == "llama4_text";
}

/// Whether gate and up take turns in the fused outputs of a model of this type, instead of halves.
[[nodiscard]] inline bool interleaves_gate_and_up(std::string_view model_type) { return model_type == "gpt_oss"; }

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_EXPERT_NAMES_HPP

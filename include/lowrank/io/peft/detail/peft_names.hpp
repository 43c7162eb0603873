// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_NAMES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_NAMES_HPP

/// \file
/// What the names of tensors in a PEFT adapter mean.
///
///     detail::parse_peft_name("base_model.model.l0.lora_A.weight")   // {lora_A, "l0"}

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

inline constexpr std::string_view peft_prefix = "base_model.model.";

/// What the name of a tensor in an adapter says.
struct peft_name {
    enum class part { lora_A, lora_B, embedding_A, embedding_B, magnitude, bias, relative, other } what = part::other;
    std::string module = {};
    std::string_view leaf = {};  ///< Of a relative of LoRA: "hada_w1_a", "vera_lambda_b", ...
};

/// Understands "<module>.lora_A.weight", with the adapter's name before ".weight" as in a state dict, with or without
/// the prefix, and embedding factors with or without ".weight".
[[nodiscard]] inline peft_name parse_peft_name(std::string_view name) {
    using part = peft_name::part;
    constexpr std::pair<std::string_view, part> marks[] = {
        {".lora_A", part::lora_A},
        {".lora_B", part::lora_B},
        {".lora_embedding_A", part::embedding_A},
        {".lora_embedding_B", part::embedding_B},
        {".lora_magnitude_vector", part::magnitude},
    };
    std::string_view rest = name;
    if (rest.starts_with(peft_prefix)) {
        rest.remove_prefix(peft_prefix.size());
    }
    for (const auto& [mark, what] : marks) {
        const std::size_t at = rest.rfind(mark);
        if (at == std::string_view::npos || at == 0) {
            continue;
        }
        std::string_view tail = rest.substr(at + mark.size());  // "", ".weight", ".default", ".default.weight"
        if (!tail.empty() && tail.front() != '.') {
            continue;
        }
        if (what == part::lora_B && (tail == ".bias" || tail.ends_with(".bias"))) {
            return {part::bias, std::string(rest.substr(0, at))};
        }
        const bool has_weight = tail.ends_with(".weight");
        tail.remove_suffix(has_weight ? 7 : 0);
        const bool one_segment = tail.empty() || tail.find('.', 1) == std::string_view::npos;
        const bool needs_weight = what == part::lora_A || what == part::lora_B;
        if (one_segment && tail != "." && (has_weight || !needs_weight)) {
            return {what, std::string(rest.substr(0, at))};
        }
    }
    return {};
}

/// Understands "<module>.<leaf>" of a type other than LORA, with the adapter's name behind it as in a state dict, and
/// ".weight" behind that where names of the type have it.
[[nodiscard]] inline peft_name parse_relative_name(std::string_view name, std::span<const std::string_view> leaves,
                                                   bool ends_in_weight) {
    std::string_view rest = name;
    if (rest.starts_with(peft_prefix)) {
        rest.remove_prefix(peft_prefix.size());
    } else if (rest.starts_with("base_model.")) {  // what all modules share: "base_model.vera_A"
        rest.remove_prefix(std::string_view("base_model.").size());
    }
    for (const std::string_view leaf : leaves) {
        for (std::size_t at = rest.rfind(leaf); at != std::string_view::npos;
             at = at == 0 ? std::string_view::npos : rest.rfind(leaf, at - 1)) {
            std::string_view tail = rest.substr(at + leaf.size());  // "" or ".default"
            if (ends_in_weight && tail.ends_with(".weight")) {      // ".weight" or ".default.weight"
                tail.remove_suffix(std::string_view(".weight").size());
            }
            const bool one_segment = tail.empty() || (tail.front() == '.' && tail.find('.', 1) == tail.npos);
            if ((at == 0 || rest[at - 1] == '.') && one_segment && tail != ".") {
                return {peft_name::part::relative, std::string(rest.substr(0, at == 0 ? 0 : at - 1)), leaf};
            }
        }
    }
    return {};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_NAMES_HPP

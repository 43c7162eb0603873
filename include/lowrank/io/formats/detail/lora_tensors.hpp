// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DETAIL_LORA_TENSORS_HPP
#define LOWRANK_IO_FORMATS_DETAIL_LORA_TENSORS_HPP

/// \file
/// What the formats of single files share: endings of names, and factors that carry a scaling.
///
///     return detail::parse_ending(name, {{".lora_a", lora_name::part::a}, {".lora_b", lora_name::part::b}});

#include <charconv>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/adapter_format.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

[[nodiscard]] inline lora_name parse_ending(std::string_view name,
                                            std::initializer_list<std::pair<std::string, lora_name::part>> endings) {
    for (const auto& [ending, part] : endings) {
        if (name.size() > ending.size() && name.ends_with(ending)) {
            return {.what = part, .module = std::string(name.substr(0, name.size() - ending.size()))};
        }
    }
    return {};
}

/// Why a format does not take a module.
[[nodiscard]] inline status cannot_represent(std::string_view format, const std::string& module,
                                             const std::string& kind) {
    return {errc::unsupported, "module " + in_quotes(module) + " is adapted by " + kind + ", which " +
                                   std::string(format) + " cannot represent"};
}

/// factor * B, rounded once.
[[nodiscard]] inline matrix<float> scaled_factor(const matrix<float>& b, double factor) {
    matrix<float> out = b;
    for (index i = 0; factor != 1 && i < out.size(); ++i) {
        out.data()[i] = static_cast<float>(static_cast<double>(b.data()[i]) * factor);
    }
    return out;
}

/// The tensors of a module under its name.
inline void append_parts(lora_tensors& out, const std::string& module, const peft_tensors& tensors) {
    for (const auto& p : tensors.parts) {
        out.tensors.push_back(tensor_of(module + "." + p.leaf, p.values));
        out.tensors.back().shape = p.shape;
    }
}

/// A number as the shortest text that reads back as it.
[[nodiscard]] inline std::string number_in_words(double x) {
    char text[32];
    const auto end = std::to_chars(std::begin(text), std::end(text), x).ptr;
    return {text, end};
}

[[nodiscard]] inline double scaling_of(const lora_adapter<float>& lora) {
    return lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DETAIL_LORA_TENSORS_HPP

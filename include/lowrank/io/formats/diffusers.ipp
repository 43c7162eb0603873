// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DIFFUSERS_IPP
#define LOWRANK_IO_FORMATS_DIFFUSERS_IPP

#include <lowrank/io/formats/diffusers.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

LOWRANK_API [[nodiscard]] lora_name parse_diffusers_name(std::string_view name) {
    using part = lora_name::part;
    return parse_ending(name, {{".lora.down.weight", part::a},
                               {".lora.up.weight", part::b},
                               {".lora_linear_layer.down.weight", part::a},  // of text encoders
                               {".lora_linear_layer.up.weight", part::b}});
}
LOWRANK_API [[nodiscard]] lora_name parse_old_diffusers_name(std::string_view name) {
    using part = lora_name::part;
    for (const std::string_view half : {std::string_view("down"), std::string_view("up")}) {
        const std::string tail = "_lora." + std::string(half) + ".weight";
        if (name.ends_with(tail)) {  // "X.attn1.processor.to_k_lora.down.weight" is about X.attn1.to_k
            std::string_view rest = name.substr(0, name.size() - tail.size());
            constexpr std::string_view processor = ".processor.";
            const std::size_t at = rest.rfind(processor);
            if (at != std::string_view::npos) {
                std::string module(rest.substr(0, at + 1));
                const std::string_view last = rest.substr(at + processor.size());
                module += last == "to_out" ? "to_out.0" : std::string(last);
                return {.what = half == "down" ? part::a : part::b, .module = std::move(module)};
            }
        }
    }
    return {};
}

/// The attention module and projection of "X.attn1.to_out.0", for the old diffusers names.
LOWRANK_API [[nodiscard]] std::optional<std::string> old_diffusers_name(std::string_view module) {
    for (const std::string_view last :
         {std::string_view("to_q"), std::string_view("to_k"), std::string_view("to_v"), std::string_view("to_out.0")}) {
        const std::string tail = "." + std::string(last);
        if (module.ends_with(tail)) {
            return std::string(module.substr(0, module.size() - tail.size())) + ".processor." +
                   (last == "to_out.0" ? "to_out" : std::string(last)) + "_lora";
        }
    }
    return std::nullopt;
}

LOWRANK_API [[nodiscard]] status emit_diffusers(lora_tensors& out, const std::string& name,
                                                const lora_adapter<float>& lora, const char* separator) {
    out.tensors.push_back(tensor_of(name + separator + "down.weight", lora.lora_A));
    out.tensors.push_back(tensor_of(name + separator + "up.weight", scaled_factor(lora.lora_B, scaling_of(lora))));
    out.metadata = {{"format", "pt"}};
    return {};
}

}  // namespace detail

LOWRANK_BODY adapter_format diffusers_format() {
    return {.name = "diffusers",
            .parse = &detail::parse_diffusers_name,
            .emit = [](lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                       const lora_write_options&) { return detail::emit_diffusers(out, module, lora, ".lora."); }};
}

LOWRANK_BODY adapter_format diffusers_old_format() {
    return {.name = "diffusers_old",
            .parse = &detail::parse_old_diffusers_name,
            .emit = [](lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                       const lora_write_options&) {
                const auto name = detail::old_diffusers_name(module);
                return name ? detail::emit_diffusers(out, *name, lora, ".")
                            : status{errc::unsupported, "module " + detail::in_quotes(module) +
                                                            " is no attention projection, which diffusers_old cannot "
                                                            "represent"};
            }};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DIFFUSERS_IPP

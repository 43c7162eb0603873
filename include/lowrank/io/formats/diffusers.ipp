// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DIFFUSERS_IPP
#define LOWRANK_IO_FORMATS_DIFFUSERS_IPP

#include <lowrank/io/formats/diffusers.hpp>

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

LOWRANK_API [[nodiscard]] lora_name parse_diffusers_name(std::string_view name) {
    using part = lora_name::part;
    return parse_ending(name, {{".lora.down.weight", part::a},
                               {".lora.up.weight", part::b},
                               {".lora_linear_layer.down.weight", part::a},  // of text encoders
                               {".lora_linear_layer.up.weight", part::b}});
}
/// The oldest names: "X.attn1.processor.to_k_lora.down.weight" is about X.attn1.to_k, "X.self_attn.to_k_lora.down.weight"
/// of a text encoder about X.self_attn.k_proj, and "X.processor.qkv_lora1.down.weight" of XLabs about X.img_attn.qkv.
LOWRANK_API [[nodiscard]] lora_name parse_old_diffusers_name(std::string_view name) {
    using part = lora_name::part;
    constexpr std::pair<std::string_view, std::string_view> processors[] = {
        {"to_out", "to_out.0"},          {"qkv_lora1", "img_attn.qkv"},   {"qkv_lora2", "txt_attn.qkv"},
        {"proj_lora1", "img_attn.proj"}, {"proj_lora2", "txt_attn.proj"}, {"qkv_lora", "qkv"},
        {"proj_lora", "linear2"}};
    constexpr std::pair<std::string_view, std::string_view> text_encoders[] = {
        {"to_q", "q_proj"}, {"to_k", "k_proj"}, {"to_v", "v_proj"}, {"to_out", "out_proj"}};
    const auto renamed = [](std::string_view last, const auto& names) {
        for (const auto& [from, to] : names) {
            if (last == from) {
                return to;
            }
        }
        return last;
    };
    for (const auto& [half, what] :
         {std::pair(std::string_view(".down.weight"), part::a), std::pair(std::string_view(".up.weight"), part::b)}) {
        if (!name.ends_with(half)) {
            continue;
        }
        std::string_view rest = name.substr(0, name.size() - half.size());
        constexpr std::string_view processor = ".processor.", text = ".self_attn.", suffix = "_lora";
        if (const std::size_t at = rest.rfind(processor); at != std::string_view::npos) {
            std::string_view last = rest.substr(at + processor.size());
            std::string_view to = renamed(last, processors);
            if (to == last && last.ends_with(suffix)) {
                last.remove_suffix(suffix.size());
                to = renamed(last, processors);
            } else if (to == last) {
                return {};
            }
            return {.what = what, .module = std::string(rest.substr(0, at + 1)).append(to)};
        }
        const std::size_t at = rest.rfind(text);
        if (at != std::string_view::npos && rest.ends_with(suffix)) {
            const std::string_view last = rest.substr(at + text.size(), rest.size() - at - text.size() - suffix.size());
            if (const std::string_view to = renamed(last, text_encoders); to != last) {
                return {.what = what, .module = std::string(rest.substr(0, at + text.size())).append(to)};
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

/// The component of a pipeline that a module is of, and its path there.
LOWRANK_API [[nodiscard]] std::pair<std::string, std::string> component_and_path(const std::string& name) {
    const std::string component = name.substr(0, name.find('.'));
    for (const std::string_view known : {"transformer", "unet", "text_encoder", "text_encoder_2", "text_encoder_3"}) {
        if (component == known && component.size() < name.size()) {
            return {component + ".", name.substr(component.size() + 1)};
        }
    }
    return {"", name};
}

/// PEFT's configuration of each component, its keys after the component's name, in one object.
LOWRANK_API [[nodiscard]] std::map<std::string, std::string> diffusers_header(
    const std::map<std::string, peft_module>& modules) {
    std::map<std::string, std::map<std::string, peft_module>> components;
    for (const auto& [name, module] : modules) {
        const auto [component, path] = component_and_path(name);
        components[component].emplace(path, module);
    }
    json all = json::object();
    for (const auto& [component, its] : components) {
        const std::string text = format_peft_config(peft_config_for(its));
        const auto config = read_json(std::as_bytes(std::span(text)));
        for (const auto& [key, value] : config->items()) {
            all[component + key] = value;
        }
    }
    return {{"format", "pt"}, {"lora_adapter_metadata", all.dump()}};
}

/// Layers and convolutions, with a magnitude or a bias of lora_B.
LOWRANK_API [[nodiscard]] bool diffusers_holds(const peft_module& module) {
    const auto* m = module.get<peft_lora>();
    return m != nullptr && !m->is_table && !m->magnitude_of_inputs;
}

LOWRANK_API [[nodiscard]] status emit_diffusers_peft(lora_tensors& out, const std::string& name,
                                                     const peft_module& module, const lora_write_options&) {
    peft_tensors tensors;
    module.kind().write(module.data(), tensors);
    append_parts(out, name, tensors);
    return {};
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
            .names_of_images = image_naming::diffusers,
            .emit = [](lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                       const lora_write_options&) { return detail::emit_diffusers(out, module, lora, ".lora."); }};
}

LOWRANK_BODY adapter_format diffusers_old_format() {
    return {.name = "diffusers_old",
            .parse = &detail::parse_old_diffusers_name,
            .names_of_images = image_naming::diffusers,
            .emit = [](lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                       const lora_write_options&) {
                const auto name = detail::old_diffusers_name(module);
                return name ? detail::emit_diffusers(out, *name, lora, ".")
                            : status{errc::unsupported, "module " + detail::in_quotes(module) +
                                                            " is no attention projection, which diffusers_old cannot "
                                                            "represent"};
            }};
}

LOWRANK_BODY adapter_format diffusers_peft_format() {
    return {.name = "diffusers_peft",
            .holds = &detail::diffusers_holds,
            .names_of_images = image_naming::diffusers,
            .header = &detail::diffusers_header,
            .emit =
                [](lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                   const lora_write_options& opt) {
                    return detail::emit_diffusers_peft(out, module, peft_module(lora), opt);
                },
            .emit_other = &detail::emit_diffusers_peft};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DIFFUSERS_IPP

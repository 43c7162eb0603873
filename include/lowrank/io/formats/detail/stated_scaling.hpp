// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DETAIL_STATED_SCALING_HPP
#define LOWRANK_IO_FORMATS_DETAIL_STATED_SCALING_HPP

/// \file
/// The scaling of an adapter file where its tensors do not say it: in the header of the file, or in the
/// adapter_config.json beside it.
///
///     auto stated = detail::find_stated_scaling(path, metadata, true, {});
///     auto alpha = stated->peft->alpha_for("transformer.blocks.0.to_q", rank);
///
/// The header has diffusers' `lora_adapter_metadata` (JSON with keys like "transformer.lora_alpha"), the same keys by
/// themselves, or `alpha` and `rank` as trainers write them.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/peft/peft_config.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Alpha of a module, and how it becomes a scaling.
struct stated_alpha {
    double alpha = 0;
    bool use_rslora = false;
};

/// What is said of the modules of one component.
struct stated_config {
    peft_lora_config config = {};
    bool has_rank = true;  ///< Whether the ranks are said too.
};

/// What a file says of scaling beside its tensors, by component ("transformer", "unet"; "" for all).
struct stated_scaling {
    std::string where = {};  ///< "the header's lora_adapter_metadata"
    std::map<std::string, stated_config, std::less<>> by_component = {};

    /// Alpha of a module of the file whose factors are of a rank; nothing where nothing is said of it.
    /// \return `mismatch` if the file says another rank than its factors have.
    [[nodiscard]] result<std::optional<stated_alpha>> alpha_for(std::string_view module, index rank) const {
        const stated_config* said = nullptr;
        std::string_view path = module;
        for (const auto& [component, of] : by_component) {
            if (!component.empty() && module.starts_with(component + ".")) {
                said = &of;
                path = module.substr(component.size() + 1);
            }
        }
        if (said == nullptr) {
            const auto all = by_component.find("");
            said = all != by_component.end()  ? &all->second
                   : by_component.size() == 1 ? &by_component.begin()->second
                                              : nullptr;
        }
        if (said == nullptr) {
            return std::optional<stated_alpha>();
        }
        if (path.starts_with(std::string_view("base_model.model."))) {
            path.remove_prefix(std::string_view("base_model.model.").size());
        }
        const peft_lora_config& config = said->config;
        if (said->has_rank && config.r_for(path) != rank) {
            return status{errc::mismatch,
                          "module " + in_quotes(module) + " has factors of rank " + std::to_string(rank) + ", " +
                              where + " says " + std::to_string(config.r_for(path)) +
                              "; its alpha cannot be trusted: give the right one as lora_alpha (--alpha)"};
        }
        return std::optional(stated_alpha{config.alpha_for(path), config.options.get<bool>("use_rslora")});
    }
};

/// A whole number or another one, as text; nothing if it is none.
[[nodiscard]] inline std::optional<double> number_in(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && is_finite(value) ? std::optional(value)
                                                                                        : std::nullopt;
}

/// The parts of a dotted key: all before its last dot, and the rest.
[[nodiscard]] inline std::pair<std::string, std::string_view> component_and_key(std::string_view name) {
    const std::size_t dot = name.rfind('.');
    return dot == std::string_view::npos ? std::pair(std::string(), name)
                                         : std::pair(std::string(name.substr(0, dot)), name.substr(dot + 1));
}

/// Makes configurations of PEFT out of their keys by component.
LOWRANK_INLINE [[nodiscard]] result<stated_scaling> scaling_of_keys(std::string where,
                                                                    std::map<std::string, json> components,
                                                                    const peft_read_options& opt) {
    stated_scaling out{.where = std::move(where)};
    for (auto& [component, keys] : components) {
        keys["peft_type"] = "LORA";
        std::vector<std::string> unused;
        const std::string text = keys.dump(-1, ' ', true, json::error_handler_t::replace);
        auto config = parse_peft_config(std::as_bytes(std::span(text)), unused, opt);
        if (!config) {
            return in_context(out.where, config.error());
        }
        out.by_component[component] = {std::move(*config), keys.contains("r")};
    }
    return out;
}

/// What the header says, if it says an alpha.
LOWRANK_INLINE [[nodiscard]] result<std::optional<stated_scaling>> scaling_in_header(
    const std::map<std::string, std::string>& metadata, const peft_read_options& opt) {
    const auto as_result = [](result<stated_scaling> s) {
        return s ? result<std::optional<stated_scaling>>(std::optional(std::move(*s)))
                 : result<std::optional<stated_scaling>>(s.error());
    };
    if (const auto at = metadata.find("lora_adapter_metadata"); at != metadata.end()) {
        const std::string where = "the header's lora_adapter_metadata";
        const auto document = read_json(std::as_bytes(std::span(at->second)));
        if (!document || !document->is_object()) {
            return in_context(where,
                              document ? status{errc::invalid_format, "it must be a JSON object"} : document.error());
        }
        std::map<std::string, json> components;
        for (const auto& [name, value] : document->items()) {
            if (value.is_object() && (value.contains("lora_alpha") || value.contains("r"))) {
                components[name] = value;  // one object for each component
                continue;
            }
            const auto [component, key] = component_and_key(name);
            components.try_emplace(component, json::object()).first->second[std::string(key)] = value;
        }
        return as_result(scaling_of_keys(where, std::move(components), opt));
    }
    constexpr std::array<std::string_view, 4> alphas{"lora_alpha", "alpha", "network_alpha", "ss_network_alpha"};
    constexpr std::array<std::string_view, 6> ranks{"r", "rank", "lora_rank", "dim", "network_dim", "ss_network_dim"};
    const auto is_among = [](std::string_view key, const auto& names) {
        return std::find(names.begin(), names.end(), key) != names.end();
    };
    std::map<std::string, json> components;
    std::string where;
    for (const auto& [name, text] : metadata) {
        const auto [component, key] = component_and_key(name);
        const auto value = number_in(text);
        if (value && is_among(key, alphas)) {
            components.try_emplace(component, json::object()).first->second["lora_alpha"] = *value;
            where = "the header's " + name;
        } else if (key == "use_rslora" && (text == "true" || text == "True")) {
            components.try_emplace(component, json::object()).first->second["use_rslora"] = true;
        }
    }
    for (const auto& [name, text] : metadata) {
        const auto [component, key] = component_and_key(name);
        const auto value = number_in(text);
        const auto at = components.find(component);
        if (at != components.end() && value && is_among(key, ranks) && *value >= 1 && *value < 1e9 &&
            *value == static_cast<double>(static_cast<std::int64_t>(*value))) {
            at->second["r"] = static_cast<std::int64_t>(*value);
        }
    }
    std::erase_if(components, [](const auto& c) { return !c.second.contains("lora_alpha"); });
    if (components.empty()) {
        return std::optional<stated_scaling>();
    }
    return as_result(scaling_of_keys(where, std::move(components), opt));
}

/// The header first, then, of a format that keeps its scaling elsewhere, the adapter_config.json beside the file: PEFT's
/// alpha and ranks, or MLX's scale.
struct found_scaling {
    std::optional<stated_scaling> peft = {};
    std::optional<double> mlx_scale = {};
};
LOWRANK_INLINE [[nodiscard]] result<found_scaling> find_stated_scaling(
    const std::filesystem::path& path, const std::map<std::string, std::string>& metadata, bool looks_beside,
    const peft_read_options& opt) {
    auto header = scaling_in_header(metadata, opt);
    if (!header) {
        return header.error();
    }
    found_scaling out{.peft = std::move(*header)};
    const auto beside = path.parent_path() / "adapter_config.json";
    std::error_code ignored;
    if (out.peft || !looks_beside || !std::filesystem::exists(beside, ignored)) {
        return out;
    }
    const auto file = mapped_file::open(beside, {.map = false});
    const auto document = file ? read_json(file->bytes()) : result<json>(file.error());
    if (!document) {
        return in_file(beside, document.error());
    }
    if (document->is_object() && !document->contains("peft_type")) {
        const auto parameters = document->find("lora_parameters");
        if (parameters != document->end() && parameters->is_object()) {
            const auto scale = parameters->find("scale");
            if (scale != parameters->end() && scale->is_number() && is_finite(scale->get<double>())) {
                out.mlx_scale = scale->get<double>();
            }
        }
        return out;
    }
    std::vector<std::string> unused;
    auto config = parse_peft_config(file->bytes(), unused, opt);
    if (!config) {
        return in_file(beside, config.error());
    }
    if (config->peft_type == "LORA") {
        out.peft = stated_scaling{.where = "the adapter_config.json beside the file"};
        out.peft->by_component[""].config = std::move(*config);
    }
    return out;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DETAIL_STATED_SCALING_HPP

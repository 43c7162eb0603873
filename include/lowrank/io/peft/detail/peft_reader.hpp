// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_READER_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_READER_HPP

/// \file
/// The tensors of an adapter folder sorted into modules.
///
///     auto weights = detail::open_peft_weights(folder);
///     auto why = detail::read_peft_tensors(*weights, path, config_path, kinds, adapter);

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/parameter_names.hpp>
#include <lowrank/io/peft/detail/peft_rules.hpp>
#include <lowrank/io/peft/detail/peft_types.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

inline constexpr std::string_view peft_prefix = "base_model.model.";

/// A name without PEFT's prefix.
[[nodiscard]] inline std::string_view without_prefix(std::string_view name) {
    return name.starts_with(peft_prefix) ? name.substr(peft_prefix.size()) : name;
}

/// What the name of a tensor says: the module and one of the type's leaves.
struct peft_name {
    std::string_view module = {};
    std::string_view leaf = {};
};

/// Understands "<module>.<leaf>" with or without PEFT's prefix, and with the adapter's name in it as in a state dict
/// ("l0.lora_A.default.weight"). What all modules share has no module: "base_model.vera_A".
LOWRANK_INLINE [[nodiscard]] std::optional<peft_name> parse_peft_name(std::string_view name, const peft_type& type) {
    constexpr std::string_view outer = "base_model.";
    if (!type.numbered.empty()) {  // with no module, or only the outer one
        const std::string_view leaf = name.starts_with(outer) ? name.substr(outer.size()) : name;
        const std::string_view number = leaf.substr(std::min(leaf.size(), type.numbered.size()));
        if (leaf.starts_with(type.numbered) && number.size() > 1 && number[0] == '.' &&
            number.find_first_not_of("0123456789", 1) == std::string_view::npos) {
            return peft_name{{}, leaf};
        }
    }
    for (const std::string_view leaf : type.leaves) {
        const std::size_t dot = leaf.rfind('.');
        const std::string_view stem = leaf.substr(0, dot);
        const std::string_view ending = dot == std::string_view::npos ? "" : leaf.substr(dot);
        const std::string_view rest = without_prefix(name);
        for (std::size_t at = rest.rfind(stem); at != std::string_view::npos;
             at = at == 0 ? std::string_view::npos : rest.rfind(stem, at - 1)) {
            std::string_view tail = rest.substr(at + stem.size());  // "", ".weight", ".default", ".default.weight"
            if (at == 1 || (at != 0 && rest[at - 1] != '.') || !tail.ends_with(ending)) {
                continue;
            }
            tail.remove_suffix(ending.size());
            if (ending.empty() && type.may_end_in_weight && tail.ends_with(".weight")) {
                tail.remove_suffix(std::string_view(".weight").size());
            }
            if (tail.empty() || (tail.size() > 1 && tail.front() == '.' && tail.find('.', 1) == tail.npos)) {
                const std::string_view module = rest.substr(0, at == 0 ? 0 : at - 1);
                return peft_name{module == outer.substr(0, outer.size() - 1) ? std::string_view() : module, leaf};
            }
        }
    }
    return std::nullopt;
}

/// The tokens whose rows of the table `module` are trained, or null.
LOWRANK_INLINE [[nodiscard]] const std::vector<std::int64_t>* token_indices_of(const peft_lora_config& config,
                                                                               std::string_view module) {
    for (const auto& [table, tokens] : config.trainable_token_indices) {
        if (table.empty() || module == table || module.ends_with("." + table)) {
            return &tokens;
        }
    }
    return nullptr;
}

/// A tensor that belongs to no module of the adapter's type.
LOWRANK_INLINE [[nodiscard]] result<peft_module> stored_module_of(const tensor_info& t,
                                                                  std::span<const std::byte> bytes,
                                                                  const peft_lora_config& config) {
    auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
    tensor_to_write stored{t.name, t.type, t.shape, *copy, copy};
    if (!t.name.ends_with(token_rows::tail)) {
        return peft_module(whole_tensor{std::move(stored)});
    }
    std::string_view table = without_prefix(t.name);
    table.remove_suffix(token_rows::tail.size());
    const auto* tokens = token_indices_of(config, table);
    if (tokens == nullptr) {
        return status{errc::mismatch, "tensor " + in_quotes(t.name) +
                                          " holds trained tokens, which the configuration's trainable_token_indices do "
                                          "not list"};
    }
    return peft_module(token_rows{std::move(stored), *tokens});
}

/// Opens the weights of an adapter folder, or says why there are none to read.
LOWRANK_INLINE [[nodiscard]] result<checkpoint> open_peft_weights(const std::filesystem::path& folder) {
    std::error_code ignored;
    for (const char* name : {"adapter_model.safetensors", "adapter_model.safetensors.index.json"}) {
        if (std::filesystem::exists(folder / name, ignored)) {
            return checkpoint::open(folder / name);
        }
    }
    if (std::filesystem::exists(folder / "adapter_model.bin", ignored)) {
        return status{
            errc::unsupported,
            path_in_quotes(folder / "adapter_model.bin") +
                " is a pickle, which can run code when it is read, and is refused; load the adapter with PEFT "
                "and save it again with save_pretrained(folder, safe_serialization=True)"};
    }
    return status{errc::not_found, "there is no adapter_model.safetensors in " + path_in_quotes(folder)};
}

/// The module that a tensor of no known part would be a part of, "" if it may stand by itself: what replaces a tensor of
/// the base, or a module of the adapter's own.
LOWRANK_INLINE [[nodiscard]] std::string foreign_part_of(
    std::string_view tensor, const peft_lora_config& config,
    const std::map<std::string, peft_parts, std::less<>>& modules) {
    for (std::size_t dot = tensor.rfind('.'); dot != std::string_view::npos; dot = tensor.rfind('.', dot - 1)) {
        const std::string module(tensor.substr(0, dot));
        const std::string_view rest = tensor.substr(dot + 1);
        if (modules.contains(module)) {
            const bool is_whole = rest == "weight" || rest == "bias" || rest.starts_with("base_layer.") ||
                                  rest.starts_with("modules_to_save.") || rest.starts_with("original_module.") ||
                                  tensor.ends_with(token_rows::tail) ||
                                  std::any_of(config.modules_to_save.begin(), config.modules_to_save.end(),
                                              [&](const std::string& saved) { return rest.starts_with(saved + "."); });
            return is_whole ? std::string() : module;
        }
        if (dot == 0) {
            break;
        }
    }
    return {};
}

/// Sets a key of a JSON object to false where it is true.
LOWRANK_INLINE void switch_off(std::string& text, std::string_view key) {
    auto document = read_json(std::as_bytes(std::span(text)));
    const std::string name(key);
    if (document && document->is_object() && document->value(name, json()) == json(true)) {
        (*document)[name] = false;
        text = document->dump(-1, ' ', true, json::error_handler_t::replace);
    }
}

/// Sorts the tensors of an adapter into the members of `out`, whose config is read.
LOWRANK_INLINE [[nodiscard]] status read_peft_tensors(const checkpoint& file, const std::filesystem::path& path,
                                                      const std::filesystem::path& config_path, peft_kind_list kinds,
                                                      peft_adapter& out, bool skip_unsupported = false) {
    const auto of = find_type(kinds, out.config.peft_type);
    expects(of.has_value(), "read_peft: the configuration is of another list of kinds");
    std::map<std::string, peft_parts, std::less<>> modules;
    const auto twice = [&](const std::string& name) {
        return in_file(path, {errc::invalid_format,
                              "tensor " + in_quotes(name) + " is there a second time under another spelling"});
    };
    for (const checkpoint::place& p : file.tensors()) {
        const tensor_info& t = *p.info;
        const auto name = parse_peft_name(t.name, of->type);
        if (!name || (name->module.empty() && of->kind->join_shared == nullptr)) {
            auto stored = stored_module_of(t, file.bytes(p), out.config);
            if (!stored) {
                return in_file(path, stored.error());
            }
            if (!out.modules.emplace(without_prefix(t.name), std::move(*stored)).second) {
                return twice(t.name);
            }
            continue;
        }
        const std::string module(name->module);
        if (!modules.try_emplace(module, module).first->second.add(name->leaf, t, file.bytes(p))) {
            return twice(t.name);
        }
        if (t.type != of->type.usual_type(name->leaf)) {
            out.types[module + "." + std::string(name->leaf)] = t.type;
        }
    }
    std::set<std::string> incomplete;
    for (const auto& [name, stored] : out.modules) {  // so far those that are tensors
        const std::string module = foreign_part_of(name, out.config, modules);
        const std::string why =
            "module " + in_quotes(module) + " has a part that is not known, " + in_quotes(stored_tensor(stored)->name);
        if (!module.empty() && !skip_unsupported) {
            return in_file(path, {errc::unsupported, why + ", and would mean something else without it"});
        }
        if (!module.empty()) {
            out.warnings.push_back(why + ", and is left out");
            incomplete.insert(module);
        }
    }
    for (const std::string& module : incomplete) {
        const auto is_part = [&](const auto& entry) { return entry.first.starts_with(module + "."); };
        modules.erase(module);
        std::erase_if(out.types, is_part);
        std::erase_if(out.modules, is_part);
    }
    const auto has_folded = [&](const auto& entry) {
        const auto& folded = of->type.folded;
        return std::any_of(folded.begin(), folded.end(), [&](std::string_view leaf) { return entry.second.has(leaf); });
    };
    if (std::any_of(modules.begin(), modules.end(), has_folded)) {
        switch_off(out.config.document, of->type.folded_key);
    }
    std::shared_ptr<const void> shared;
    if (const auto at = modules.find(""); at != modules.end()) {
        shared = of->kind->join_shared(at->second);
        if (!at->second.why) {
            return in_file(path, at->second.why);
        }
        modules.erase(at);
    }
    const std::string replaced_in = "." + std::string(of->type.replaced_in) + ".";
    const bool replaces =
        !of->type.replaced_in.empty() && std::any_of(out.modules.begin(), out.modules.end(), [&](const auto& entry) {
            return entry.first.find(replaced_in) != std::string::npos;
        });
    if (modules.empty() && !replaces) {
        std::string there;
        for (std::size_t i = 0; i < std::min<std::size_t>(file.tensors().size(), 3); ++i) {
            there += (i == 0 ? "; there are " : ", ") + in_quotes(file.tensors()[i].info->name);
        }
        return in_file(path, {errc::invalid_format,
                              "the file holds no " + out.config.peft_type + " tensors that can be read" + there});
    }
    const auto places = parameters_of(out.config.target_parameters, modules);
    std::vector<std::string> paths;  // what patterns may mean
    for (const auto& [module, parts] : modules) {
        const auto of_parameter = places.find(module);
        if (of_parameter == places.end()) {
            paths.push_back(module);
            continue;
        }
        const auto known = of_parameter->second.names();
        paths.insert(paths.end(), known.begin(), known.end());
    }
    const std::vector<std::string_view> names(paths.begin(), paths.end());
    const auto rules = peft_rules::compile(out.config, names, of->type.rank_pattern_key);
    if (!rules) {
        return in_file(config_path, rules.error());
    }
    for (auto& [module, parts] : modules) {
        const auto at = places.find(module);
        const parameter_place* place = at != places.end() ? &at->second : nullptr;
        std::string known = module;  // what the configuration knows it by
        for (const std::string& name : place != nullptr ? place->names() : std::vector<std::string>()) {
            known = known == module ? name : known;
            if (rules->r_for(name) != rules->r_for(known) || rules->alpha_for(name) != rules->alpha_for(known)) {
                return in_file(config_path,
                               {errc::unsupported, "nothing tells whether module " + in_quotes(module) + " is for " +
                                                       in_quotes(known) + " or " + in_quotes(name) +
                                                       ", which have different ranks or alphas"});
            }
        }
        const peft_context context{.options = out.config.options,
                                   .type = out.config.peft_type,
                                   .r = rules->r_for(known),
                                   .alpha = rules->alpha_for(known),
                                   .dropout = out.config.lora_dropout,
                                   .shared = shared,
                                   .modules = names};
        const peft_description& reads = of->kind_of(out.config.options, known);
        if (place != nullptr && &reads != of->kind) {
            parts.fail(errc::unsupported, "is of an expert's parameter, which has no such form of its type");
            return in_file(path, parts.why);
        }
        peft_module made = place != nullptr ? join_experts(parts, context, *place) : reads.join(parts, context);
        if (!parts.why) {
            return in_file(path, parts.why);
        }
        const std::string key = made.get<peft_experts>() != nullptr ? place->path() : module;
        for (const std::string_view leaf : key != module ? of->type.leaves : std::vector<std::string_view>()) {
            if (auto type = out.types.extract(module + "." + std::string(leaf))) {
                type.key() = key + "." + std::string(leaf);
                out.types.insert(std::move(type));
            }
        }
        if (!out.modules.emplace(key, std::move(made)).second) {
            return in_file(path, {errc::invalid_format, "module " + in_quotes(key) + " is named like a tensor"});
        }
    }
    return {};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_READER_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_READER_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_READER_HPP

/// \file
/// The tensors of an adapter folder sorted into modules.
///
///     auto weights = detail::open_peft_weights(folder);
///     auto why = detail::read_peft_tensors(*weights, path, config_path, adapter);

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/peft_factors.hpp>
#include <lowrank/io/peft/detail/peft_join.hpp>
#include <lowrank/io/peft/detail/peft_names.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

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

/// Sorts the tensors of an adapter into the members of `out`, whose config is read.
LOWRANK_INLINE [[nodiscard]] status read_peft_tensors(const checkpoint& file, const std::filesystem::path& path,
                                                      const std::filesystem::path& config_path, peft_adapter& out) {
    using part = peft_name::part;
    const bool is_lora = out.config.peft_type == peft_kind<peft_lora>::type;
    const auto leaves = leaves_of(out.config.peft_type);
    const bool with_weight = ends_in_weight(out.config.peft_type);
    std::map<std::string, peft_factors> modules;
    std::map<std::string, peft_factors> embeddings;
    std::map<std::string, relative_parts> relatives;
    for (const checkpoint::place& p : file.tensors()) {
        auto name = is_lora ? parse_peft_name(p.info->name) : parse_relative_name(p.info->name, leaves, with_weight);
        const auto twice = [&] {
            return in_file(path, {errc::invalid_format, "tensor " + in_quotes(p.info->name) +
                                                            " is there a second time under another spelling"});
        };
        if (name.what == part::other) {
            const auto bytes = file.bytes(p);
            auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
            out.extra.push_back({p.info->name, p.info->type, p.info->shape, *copy, copy});
        } else if (name.what == part::relative) {
            auto& parts = relatives.try_emplace(name.module, file, name.module).first->second;
            if (!parts.add(name.leaf, p)) {
                return twice();
            }
            if (p.info->type != dtype::f32) {
                out.relative_types[name.module + "." + std::string(name.leaf)] = p.info->type;
            }
        } else {
            const bool is_table = name.what == part::embedding_A || name.what == part::embedding_B;
            peft_factors& f = (is_table ? embeddings : modules)[std::move(name.module)];
            const bool is_a = name.what == part::lora_A || name.what == part::embedding_A;
            auto& slot = name.what == part::magnitude ? f.magnitude
                         : name.what == part::bias    ? f.bias
                         : is_a                       ? f.a
                                                      : f.b;
            if (slot != nullptr) {
                return twice();
            }
            slot = &p;
        }
    }
    for (auto& [module, f] : embeddings) {  // the magnitude of a table is named like that of a layer
        if (const auto at = modules.find(module); at != modules.end() && at->second.a == nullptr) {
            f.magnitude = at->second.magnitude;
            modules.erase(at);
        }
    }
    std::shared_ptr<const void> shared;
    if (const auto at = relatives.find(""); shares_tensors(out.config.peft_type) && at != relatives.end()) {
        auto of_all = join_shared(at->second, out.config.peft_type);
        if (!of_all) {
            return in_file(path, of_all.error());
        }
        shared = std::move(*of_all);
        relatives.erase(at);
    }
    if (modules.empty() && embeddings.empty() && relatives.empty()) {
        return in_file(path, {errc::invalid_format, "the file holds no " + out.config.peft_type + " tensors"});
    }
    auto names = names_of(modules, embeddings);
    for (const auto& [module, parts] : relatives) {
        names.push_back(module);
    }
    const auto rules = peft_rules::compile(out.config, names);
    if (!rules) {
        return in_file(config_path, rules.error());
    }
    for (auto* group : {&modules, &embeddings}) {
        for (const auto& [module, factors] : *group) {
            auto adapter = join_factors(file, factors, module, out.config, *rules);
            if (!adapter) {
                return in_file(path, adapter.error());
            }
            adapter->is_table = group == &embeddings;
            if ((factors.magnitude != nullptr) != out.config.use_dora ||
                (factors.bias != nullptr && !out.config.lora_bias)) {
                return in_file(
                    path, {errc::mismatch, "module " + in_quotes(module) + " has " +
                                               (factors.magnitude != nullptr ? "a" : "no") +
                                               " lora_magnitude_vector and " + (factors.bias != nullptr ? "a" : "no") +
                                               " lora_B.bias, the configuration says otherwise"});
            }
            if (factors.is_relative()) {
                relative_tensors tensors;
                tensors(*adapter);
                const checkpoint::place* places[] = {factors.a, factors.b, factors.magnitude, factors.bias};
                for (const auto* p : places) {
                    if (p != nullptr && p->info->type != dtype::f32) {
                        out.relative_types[module + std::string(p == factors.a           ? tensors.parts[0].tail
                                                                : p == factors.b         ? tensors.parts[1].tail
                                                                : p == factors.magnitude ? ".lora_magnitude_vector"
                                                                                         : ".lora_B.bias")] =
                            p->info->type;
                    }
                }
                out.relatives.emplace(module, std::move(*adapter));
                continue;
            }
            const std::pair types(factors.a->info->type, factors.b->info->type);
            if (types != std::pair(dtype::f32, dtype::f32)) {
                out.factor_types.emplace(module, types);
            }
            (adapter->is_table ? out.embeddings : out.modules).emplace(module, std::move(adapter->lora));
        }
    }
    for (auto& [module, parts] : relatives) {
        auto relative = join_relative(parts, {out.config, *rules, shared});
        if (!relative) {
            return in_file(path, relative.error());
        }
        out.relatives.emplace(module, std::move(*relative));
    }
    return {};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_READER_HPP

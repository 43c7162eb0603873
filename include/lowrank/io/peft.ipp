// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_IPP
#define LOWRANK_IO_PEFT_IPP

#include <algorithm>
#include <utility>

#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/detail/peft_factors.hpp>
#include <lowrank/io/peft/detail/peft_fit.hpp>
#include <lowrank/io/peft/detail/peft_join.hpp>
#include <lowrank/io/peft/detail/peft_names.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The folder that read_peft reads: the one given, or its only sub-folder with an adapter.
LOWRANK_API [[nodiscard]] result<std::filesystem::path> one_peft_folder(const std::filesystem::path& folder) {
    std::error_code ignored;
    if (std::filesystem::exists(folder / "adapter_config.json", ignored)) {
        return folder;
    }
    const std::string none = "there is no adapter_config.json in " + path_in_quotes(folder);
    auto all = peft_folders(folder);
    if (!all) {
        return status{all.error().code, none + ": " + all.error().message};
    }
    if (all->size() == 1) {
        return std::move(all->front());
    }
    if (all->empty()) {
        return status{errc::not_found, none};
    }
    constexpr std::size_t shown = 8;
    std::string names;
    for (std::size_t i = 0; i < std::min(all->size(), shown); ++i) {
        names += (i == 0 ? "" : ", ") + path_in_quotes((*all)[i].filename());
    }
    return status{errc::not_found, none + "; " + std::to_string(all->size()) + " of its sub-folders have one: " +
                                       names + (all->size() > shown ? ", ..." : "") + "; name one of them"};
}

}  // namespace detail

namespace detail {

/// A factor as a tensor of the file, rounded once if its storage type is narrower than float.
LOWRANK_API [[nodiscard]] tensor_to_write factor_tensor(std::string name, dtype type, const matrix<float>& x) {
    switch (type) {
        case dtype::f16: return tensor_of(std::move(name), row_matrix<half>(x.cast<half>()));
        case dtype::bf16: return tensor_of(std::move(name), row_matrix<bfloat16>(x.cast<bfloat16>()));
        case dtype::f64: return tensor_of(std::move(name), row_matrix<double>(x.cast<double>()));
        default: return tensor_of(std::move(name), x);
    }
}

}  // namespace detail

LOWRANK_BODY result<std::vector<std::filesystem::path>> peft_folders(const std::filesystem::path& folder) {
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error)) {
        return status{errc::not_found, detail::path_in_quotes(folder) + " is not a folder"};
    }
    std::vector<std::filesystem::path> out;
    auto entry = std::filesystem::directory_iterator(folder, error);
    for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
        std::error_code ignored;
        if (!entry->is_symlink(ignored) && entry->is_directory(ignored) &&
            std::filesystem::exists(entry->path() / "adapter_config.json", ignored)) {
            out.push_back(entry->path());
        }
    }
    if (error) {
        return status{errc::io_failure, "cannot list " + detail::path_in_quotes(folder) + ": " + error.message()};
    }
    std::sort(out.begin(), out.end());
    if (std::filesystem::exists(folder / "adapter_config.json", error)) {
        out.insert(out.begin(), folder);
    }
    return out;
}

LOWRANK_BODY result<peft_adapter> read_peft(const std::filesystem::path& given, const peft_read_options& opt) {
    const auto found = detail::one_peft_folder(given);
    if (!found) {
        return found.error();
    }
    const std::filesystem::path& folder = *found;
    const auto config_path = folder / "adapter_config.json";
    const auto text = mapped_file::open(config_path, {.map = false});
    if (!text) {
        return text.error();
    }
    peft_adapter out;
    if (folder != given) {
        out.warnings.push_back("read from its sub-folder " + detail::path_in_quotes(folder.filename()));
    }
    auto config = parse_peft_config(text->bytes(), out.warnings, opt);
    if (!config) {
        return detail::in_file(config_path, config.error());
    }
    out.config = std::move(*config);

    const auto file = detail::open_peft_weights(folder);
    if (!file) {
        return file.error();
    }
    const auto& path = file->shards().empty() ? folder : file->shards().front().path;
    out.metadata = file->shards().empty() ? out.metadata : file->shards().front().file.metadata();

    if (status why = detail::read_peft_tensors(*file, path, config_path, out); !why) {
        return why;
    }
    const std::size_t all = out.modules.size() + out.embeddings.size() + out.relatives.size();
    const auto untrained =
        static_cast<std::size_t>(std::count_if(out.modules.begin(), out.modules.end(),
                                               [](auto& m) { return detail::all_zero(m.second.lora_B); }) +
                                 std::count_if(out.embeddings.begin(), out.embeddings.end(),
                                               [](auto& m) { return detail::all_zero(m.second.lora_B); }));
    if (untrained != 0) {
        out.warnings.push_back("lora_B is zero in " + std::to_string(untrained) + " of " + std::to_string(all) +
                               " modules, which therefore change nothing");
    }
    if (!out.extra.empty()) {
        out.warnings.push_back("the file holds " + std::to_string(out.extra.size()) +
                               " tensors that replace ones of the base, such as " +
                               detail::in_quotes(out.extra.front().name) + "; they are not part of the modules");
    }
    return out;
}

LOWRANK_BODY std::uint64_t parameter_count(const peft_module& relative) {
    detail::relative_tensors tensors;
    std::visit(tensors, relative);
    std::uint64_t count = 0;
    for (const auto& part : tensors.parts) {
        count += static_cast<std::uint64_t>(part.values.size());
    }
    return count;
}

LOWRANK_BODY peft_lora_config peft_config_for(const std::map<std::string, lora_adapter<float>>& modules,
                                              peft_lora_config base) {
    peft_adapter adapter;
    adapter.modules = modules;
    return peft_config_for(adapter, std::move(base));
}

LOWRANK_BODY peft_lora_config peft_config_for(const peft_adapter& adapter, peft_lora_config base) {
    std::vector<detail::module_facts> all;
    const lora_adapter<float>* first = nullptr;
    const auto add = [&](const std::string& module, const lora_adapter<float>& lora) {
        first = first != nullptr ? first : &lora;
        detail::expects(lora.use_rslora == first->use_rslora, "peft_config_for: the modules must agree on use_rslora");
        all.push_back({module, lora.rank(), lora.lora_alpha});
    };
    for (const auto* group : {&adapter.modules, &adapter.embeddings}) {
        for (const auto& [module, lora] : *group) {
            add(module, lora);
        }
    }
    const std::string given = std::exchange(base.peft_type, "LORA");
    base.use_dora = false;
    base.lora_bias = false;
    base.feedforward_modules.clear();
    if (!adapter.relatives.empty() && !detail::is_of_type(adapter.relatives.begin()->second, given)) {
        base.peft_type = detail::type_of(adapter.relatives.begin()->second);
    } else if (!adapter.relatives.empty()) {
        base.peft_type = given;
    }
    for (const auto& [module, relative] : adapter.relatives) {
        detail::expects(detail::is_of_type(relative, base.peft_type) &&
                            (all.empty() || first == nullptr || std::holds_alternative<peft_lora>(relative)),
                        "peft_config_for: the modules must be of one peft_type");
        if (const auto* m = std::get_if<peft_lora>(&relative)) {
            add(module, m->lora);
            base.use_dora = base.use_dora || m->magnitude.size() != 0;
            base.lora_bias = base.lora_bias || m->bias.size() != 0;
        } else {
            all.push_back(detail::facts_of(module, relative));
        }
        if (const auto* m = std::get_if<peft_ia3>(&relative); m != nullptr && m->is_feedforward) {
            base.feedforward_modules.push_back(module);
        }
    }
    detail::fit_config(base, all);
    detail::fit_kind(base.kind, adapter.relatives);
    if (first != nullptr) {
        base.use_rslora = first->use_rslora;
        base.lora_dropout = first->lora_dropout;
    }
    return base;
}

namespace detail {

/// All tensors of an adapter's file, or why the configuration does not describe them.
LOWRANK_API [[nodiscard]] result<std::vector<tensor_to_write>> peft_tensors(const peft_adapter& adapter) {
    auto names = names_of(adapter.modules, adapter.embeddings);
    for (const auto& [module, relative] : adapter.relatives) {
        names.push_back(module);
    }
    const auto rules = peft_rules::compile(adapter.config, names);
    if (!rules) {
        return rules.error();
    }
    std::vector<tensor_to_write> tensors = adapter.extra;
    for (const auto* group : {&adapter.modules, &adapter.embeddings}) {
        for (const auto& [module, lora] : *group) {
            if (status why = check_against_config(module, lora, adapter.config, *rules); !why) {
                return why;
            }
            if (adapter.config.use_dora || adapter.config.peft_type != "LORA") {
                return status{errc::mismatch, "module " + in_quotes(module) +
                                                  " is plain LoRA, the configuration says otherwise; PEFT has one "
                                                  "kind of module per adapter"};
            }
            const auto at = adapter.factor_types.find(module);
            const auto types = at != adapter.factor_types.end() ? at->second : std::pair(dtype::f32, dtype::f32);
            const std::string path = std::string(peft_prefix) + module;
            const bool is_table = group == &adapter.embeddings;
            tensors.push_back(
                factor_tensor(path + (is_table ? ".lora_embedding_A" : ".lora_A.weight"), types.first, lora.lora_A));
            tensors.push_back(
                factor_tensor(path + (is_table ? ".lora_embedding_B" : ".lora_B.weight"), types.second, lora.lora_B));
        }
    }
    bool wrote_shared = false;
    for (const auto& [module, relative] : adapter.relatives) {
        if (status why = check_relative(module, relative, adapter.config, *rules); !why) {
            return why;
        }
        relative_tensors parts;
        std::visit(parts, relative);
        if (!wrote_shared) {
            std::visit(
                [&](const auto& m) {
                    if constexpr (requires { kind_of_module<decltype(m)>::write_shared(m, parts); }) {
                        kind_of_module<decltype(m)>::write_shared(m, parts);
                    }
                },
                relative);
            wrote_shared = true;
        }
        for (auto& part : parts.parts) {
            part.tail = tail_of_type(std::move(part.tail), adapter.config.peft_type);
        }
        for (auto& part : parts.parts) {
            if (!all_finite(part.values)) {
                return status{errc::non_finite, "module " + in_quotes(module) + " holds NaN or infinity"};
            }
            const bool is_shared = !part.tail.starts_with('.');
            const auto type = adapter.relative_types.find(is_shared ? "." + part.tail : module + part.tail);
            tensors.push_back(
                factor_tensor(is_shared ? "base_model." + part.tail : std::string(peft_prefix) + module + part.tail,
                              type != adapter.relative_types.end() ? type->second : dtype::f32, part.values));
            tensors.back().shape = part.shape;
        }
    }
    return tensors;
}

}  // namespace detail

LOWRANK_BODY status write_peft(const std::filesystem::path& folder, const peft_adapter& adapter,
                               const write_options& opt) {
    auto tensors = detail::peft_tensors(adapter);
    if (!tensors) {
        return tensors.error();
    }
    std::error_code error;
    const bool existed = std::filesystem::exists(folder, error);
    std::filesystem::create_directories(folder, error);
    if (error) {
        return detail::system_failure("cannot create the folder", folder, error.value());
    }
    // Both files are complete on the disk before the first takes its name.
    const auto write = [&]() -> status {
        auto config = atomic_file::create(folder / "adapter_config.json", opt);
        if (!config) {
            return config.error();
        }
        if (status why = config->write(format_peft_config(adapter.config)); !why) {
            return why;
        }
        auto model = detail::unnamed_safetensors(folder / "adapter_model.safetensors", std::move(*tensors),
                                                 adapter.metadata, opt);
        return model ? commit_together(*model, *config) : model.error();
    };
    status why = write();
    if (!why && !existed) {
        std::filesystem::remove(folder, error);  // only if nothing else is in it
    }
    return why;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_IPP

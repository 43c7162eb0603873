// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_IPP
#define LOWRANK_IO_PEFT_IPP

#include <lowrank/io/peft.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <system_error>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>
#include <lowrank/io/peft/detail/peft_rules.hpp>
#include <lowrank/io/peft/detail/peft_types.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

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

    if (status why = detail::read_peft_tensors(*file, path, config_path, opt.kinds, out, opt.skip_unsupported); !why) {
        return why;
    }
    std::size_t untrained = 0;
    std::size_t stored = 0;
    for (const auto& [module_path, module] : out.modules) {
        stored += stored_tensor(module) != nullptr ? 1 : 0;
        untrained += is_plain_lora(module) && detail::all_zero(lora_of(module).lora_B) ? 1 : 0;
    }
    if (untrained != 0) {
        out.warnings.push_back("lora_B is zero in " + std::to_string(untrained) + " of " +
                               std::to_string(out.modules.size() - stored) +
                               " modules, which therefore change nothing");
    }
    if (stored != 0) {
        out.warnings.push_back("the file holds " + std::to_string(stored) +
                               " tensors that replace ones of the base or are new, such as " +
                               detail::in_quotes(first_stored_tensor(out)->name));
    }
    return out;
}

namespace detail {

/// The kinds of the modules and those of the library, each once, those of the library first.
LOWRANK_INLINE [[nodiscard]] std::vector<const peft_description*> kinds_of(
    const std::map<std::string, peft_module>& modules) {
    std::vector<const peft_description*> kinds(peft_kinds().begin(), peft_kinds().end());
    for (const auto& [path, module] : modules) {
        if (std::find(kinds.begin(), kinds.end(), &module.kind()) == kinds.end()) {
            kinds.push_back(&module.kind());
        }
    }
    return kinds;
}

/// The value that occurs most often.
template <class T>
[[nodiscard]] T most_frequent(const std::map<T, std::size_t>& counts) {
    return std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) { return a.second < b.second; })->first;
}

/// Which modules and which parameters of modules there are.
LOWRANK_INLINE void fit_targets(peft_lora_config& base, const std::map<std::string, peft_module>& modules) {
    std::set<std::string> names;
    std::set<std::string> parameters;
    for (const auto& [path, module] : modules) {
        if (const auto* experts = module.template get<peft_experts>()) {
            const parameter_place& place = experts->place;
            for (const std::string& name :
                 place.parameter.empty() ? place.may_be : std::vector<std::string>{place.parameter}) {
                parameters.insert(place.module.substr(place.module.rfind('.') + 1) + "." + name);
            }
        } else if (stored_tensor(module) == nullptr) {
            names.insert(path.substr(path.rfind('.') + 1));  // npos + 1 is 0: the whole path
        }
    }
    base.target_pattern.clear();
    base.target_modules.assign(names.begin(), names.end());
    base.target_parameters.assign(parameters.begin(), parameters.end());
}

/// Rank, alpha, patterns and dropout that fit.
LOWRANK_INLINE void fit_facts(peft_lora_config& base, const std::vector<std::pair<std::string, peft_facts>>& all) {
    base.rank_pattern.clear();
    base.alpha_pattern.clear();
    if (all.empty()) {
        return;
    }
    std::map<index, std::size_t> ranks;
    std::map<double, std::size_t> alphas;
    for (const auto& [module, facts] : all) {
        ++ranks[facts.r];
        ++alphas[facts.alpha];
    }
    base.r = most_frequent(ranks);
    base.lora_alpha = most_frequent(alphas);
    base.lora_dropout = all.front().second.dropout.value_or(base.lora_dropout);
    for (const auto& [module, facts] : all) {
        // Anchored and escaped, so that the key means this module and no other.
        std::string key = "^";
        for (const char c : module) {
            const bool plain = static_cast<unsigned char>(c) >= 0x80 || c == '_' || (c >= '0' && c <= '9') ||
                               (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
            key += plain ? "" : "\\";
            key += c;
        }
        if (facts.r != base.r) {
            base.rank_pattern.emplace_back(key, facts.r);
        }
        if (facts.alpha != base.lora_alpha) {
            base.alpha_pattern.emplace_back(key, facts.alpha);
        }
    }
}

}  // namespace detail

LOWRANK_BODY peft_lora_config peft_config_for(const std::map<std::string, peft_module>& modules,
                                              peft_lora_config base) {
    std::vector<std::pair<std::string, peft_facts>> all;
    for (const auto& [path, module] : modules) {
        if (const auto* rows = module.template get<token_rows>()) {
            std::string_view table = path;
            table.remove_suffix(std::min(token_rows::tail.size(), table.size()));
            if (detail::token_indices_of(base, table) == nullptr) {
                base.trainable_token_indices[std::string(table)] = rows->tokens;
            }
        }
        if (stored_tensor(module) != nullptr) {
            continue;
        }
        if (all.empty() && !type_of(module).empty() && !is_of_type(module, base.peft_type)) {
            base.peft_type = type_of(module);
        }
        detail::expects(type_of(module).empty() || is_of_type(module, base.peft_type),
                        "peft_config_for: the modules must be of one peft_type");
        all.emplace_back(path, module.kind().facts(module.data()));
    }
    detail::fit_targets(base, modules);
    detail::fit_facts(base, all);
    const auto kinds = detail::kinds_of(modules);
    const auto type = detail::find_type(kinds, base.peft_type);
    if (!type) {
        return base;
    }
    const std::string replaced_in = "." + std::string(type->type.replaced_in) + ".";
    for (const auto& [path, module] : modules) {
        const std::size_t end = type->type.replaced_in.empty() ? std::string::npos : path.find(replaced_in);
        const std::string name = path.substr(0, end).substr(path.substr(0, end).rfind('.') + 1);
        if (end != std::string::npos &&
            std::find(base.target_modules.begin(), base.target_modules.end(), name) == base.target_modules.end()) {
            base.target_modules.push_back(name);
        }
    }
    base.options.complete(type->type.keys);
    for (const peft_description* kind : kinds) {
        std::vector<std::string> names;
        std::vector<const void*> of_kind;
        for (const auto& [path, module] : modules) {
            if (&module.kind() == kind) {
                names.push_back(path);
                of_kind.push_back(module.data());
            }
        }
        // The first form of a type says what holds without modules of the others; forms that are claimed, that none is.
        const auto of_type = type->kinds();
        const bool speaks = std::find(of_type.begin(), of_type.end(), kind) != of_type.end();
        if (kind->fit_options != nullptr && (!of_kind.empty() || speaks)) {
            kind->fit_options(base.options, names, of_kind);
        }
    }
    return base;
}

namespace detail {

/// Why the configuration does not describe a module, if it does not.
LOWRANK_INLINE [[nodiscard]] status check_against_config(const std::string& path, const peft_module& module,
                                                         const peft_lora_config& c, const typed_kind& of,
                                                         const peft_rules& rules) {
    const peft_type& type = of.type;
    const auto differs = [&](const std::string& what) {
        return status{errc::mismatch,
                      "module " + in_quotes(path) + ": its " + what +
                          " is not that of the configuration; use peft_config_for to make one that fits"};
    };
    const auto has_other = [&](std::string_view what, const std::string& has, const std::string& says) {
        return status{errc::mismatch, "module " + in_quotes(path) + " has " + std::string(what) + " " + has +
                                          ", the configuration says " + says +
                                          "; use peft_config_for to make one that fits"};
    };
    if (type_of(module).empty()) {
        return {errc::unsupported,
                "module " + in_quotes(path) + " is " + kind_of(module) + ", which PEFT's files cannot hold"};
    }
    if (!is_of_type(module, c.peft_type)) {
        return differs("peft_type");
    }
    const auto is_form = [&](const peft_description* kind) { return kind == &module.kind(); };
    const peft_description& reads = of.kind_of(c.options, path);
    if (&reads != (std::any_of(of.forms.begin(), of.forms.end(), is_form) ? &module.kind() : of.kind)) {
        return differs("form");
    }
    const peft_facts has = module.kind().facts(module.data());
    const auto* experts = module.get<peft_experts>();
    const std::string known = experts != nullptr ? experts->place.names().front() : path;
    const index r = type.has_rank_pattern ? rules.r_for(known) : c.r;
    double alpha = type.has_alpha_pattern ? rules.alpha_for(known) : c.lora_alpha;
    alpha = type.alpha_of_zero_is_r && alpha <= 0 ? static_cast<double>(c.r) : alpha;
    if (!type.r_key.empty() && has.r != r) {
        return has_other("rank", std::to_string(has.r), std::to_string(r));
    }
    if (!type.alpha_key.empty() && has.alpha != alpha) {
        return has_other(type.alpha_key, in_words(has.alpha), in_words(alpha));
    }
    const char* other =
        module.kind().differs != nullptr ? module.kind().differs(c.options, path, module.data()) : nullptr;
    return other != nullptr ? differs(other) : status{};
}

/// Indices, which are whole numbers in float, as a tensor of integers.
template <class I>
[[nodiscard]] tensor_to_write integers_of(std::string name, dtype type, const matrix<float>& x) {
    auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(x.size()) * sizeof(I));
    std::byte* to = bytes->data();
    for (index i = 0; i < x.rows(); ++i) {
        for (index j = 0; j < x.cols(); ++j, to += sizeof(I)) {
            const auto value = static_cast<I>(x(i, j));
            std::memcpy(to, &value, sizeof value);
        }
    }
    return {.name = std::move(name), .type = type, .bytes = *bytes, .owned = bytes};
}

/// A tensor of the file, rounded once if its storage type is narrower than float.
LOWRANK_INLINE [[nodiscard]] tensor_to_write stored_as(std::string name, dtype type, const peft_tensors::part& part) {
    tensor_to_write out;
    const dtype as = part.integers.value_or(type);
    switch (as) {
        case dtype::f16: out = tensor_of(std::move(name), row_matrix<half>(part.values.cast<half>())); break;
        case dtype::bf16: out = tensor_of(std::move(name), row_matrix<bfloat16>(part.values.cast<bfloat16>())); break;
        case dtype::f64: out = tensor_of(std::move(name), row_matrix<double>(part.values.cast<double>())); break;
        case dtype::u8: out = integers_of<std::uint8_t>(std::move(name), as, part.values); break;
        case dtype::i16: out = integers_of<std::int16_t>(std::move(name), as, part.values); break;
        case dtype::i32: out = integers_of<std::int32_t>(std::move(name), as, part.values); break;
        case dtype::i64: out = integers_of<std::int64_t>(std::move(name), as, part.values); break;
        default: out = tensor_of(std::move(name), part.values);
    }
    out.shape = part.shape;
    return out;
}

/// All tensors of an adapter's file, or why the configuration does not describe them.
LOWRANK_INLINE [[nodiscard]] result<std::vector<tensor_to_write>> peft_tensors_of(const peft_adapter& adapter,
                                                                                  const typed_kind& of) {
    const peft_type& type = of.type;
    std::vector<std::string> paths;
    for (const auto& [path, module] : adapter.modules) {
        if (const auto* experts = module.template get<peft_experts>()) {
            const auto known = experts->place.names();
            paths.insert(paths.end(), known.begin(), known.end());
        } else if (stored_tensor(module) == nullptr) {
            paths.push_back(path);
        }
    }
    const std::vector<std::string_view> names(paths.begin(), paths.end());
    const auto rules = peft_rules::compile(adapter.config, names, type.rank_pattern_key);
    if (!rules) {
        return rules.error();
    }
    std::vector<tensor_to_write> out;
    status why;
    const auto add = [&](const std::string& path, const std::string& path_in_file, const peft_tensors& tensors,
                         const peft_type& own) {
        for (const auto& part : tensors.parts) {
            if (!all_finite(part.values)) {
                why = {errc::non_finite, "module " + in_quotes(path) + " holds NaN or infinity"};
                return;
            }
            // An older name of the type has names of its own for the same tensors.
            const auto at = std::find(own.leaves.begin(), own.leaves.end(), part.leaf);
            const auto i = static_cast<std::size_t>(at - own.leaves.begin());
            const bool is_older = type.name != own.name && i < type.leaves.size();
            const std::string leaf(is_older ? type.leaves[i] : part.leaf);
            const auto stored = adapter.types.find(path + "." + leaf);
            const std::string prefix = path.empty() ? "base_model" : std::string(peft_prefix) + path_in_file;
            out.push_back(stored_as(prefix + "." + leaf,
                                    stored != adapter.types.end() ? stored->second : type.usual_type(leaf), part));
        }
    };
    std::map<std::string, matrix<float>> shared;
    std::set<const void*> seen;
    for (const auto& [path, module] : adapter.modules) {
        peft_tensors tensors;
        module.kind().write(module.data(), tensors);
        if (tensors.whole) {
            out.push_back(std::move(*tensors.whole));
            continue;
        }
        why = check_against_config(path, module, adapter.config, of, *rules);
        if (!why) {
            return why;
        }
        const auto types = module.kind().types();
        const auto named = module.kind().path_in_file;
        add(path, named != nullptr ? named(path, module.data()) : path, tensors, types.front());
        const void* const identity =
            module.kind().shared_identity != nullptr ? module.kind().shared_identity(module.data()) : nullptr;
        if (why && module.kind().write_shared != nullptr && (identity == nullptr || seen.insert(identity).second)) {
            peft_tensors own;
            why = module.kind().write_shared(module.data(), {adapter.config.options, path, names}, own);
            peft_tensors fresh;
            for (const auto& part : own.parts) {
                const auto [at, is_new] = shared.try_emplace(part.leaf, part.values);
                if (is_new) {
                    fresh.parts.push_back(part);
                } else if (why && at->second != part.values) {
                    why = {errc::mismatch, "module " + in_quotes(path) + " has another " + part.leaf +
                                               " than a module before it, and the file has one for both"};
                }
            }
            add("", "", fresh, types.front());
        }
        if (!why) {
            return why;
        }
    }
    return out;
}

}  // namespace detail

LOWRANK_BODY peft_lora_config peft_config_for(const peft_adapter& adapter, peft_lora_config base) {
    return peft_config_for(adapter.modules, std::move(base));
}

LOWRANK_BODY status write_peft(const std::filesystem::path& folder, const peft_adapter& adapter,
                               const write_options& opt) {
    const auto kinds = detail::kinds_of(adapter.modules);
    const auto type = detail::find_type(kinds, adapter.config.peft_type);
    if (!type) {
        return {errc::unsupported, "peft_type " + detail::in_quotes(adapter.config.peft_type) + " is not supported"};
    }
    auto tensors = detail::peft_tensors_of(adapter, *type);
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
        if (status why = config->write(format_peft_config(adapter.config, kinds)); !why) {
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

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_HPP
#define LOWRANK_IO_PEFT_HPP

/// \file
/// Reads and writes LoRA adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors.
///
///     auto adapter = lowrank::read_peft("shakespeare-lora");
///     if (!adapter) return log(adapter.error().message);
///     for (const auto& [module, lora] : adapter->modules) ...      // "model.layers.0.self_attn.q_proj"
///     auto why = lowrank::write_peft("copy", *adapter);            // byte for byte what was read
///
/// Names, shapes and keys follow huggingface/peft, save_pretrained.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/atomic_file.hpp>
#include <lowrank/io/checkpoint.hpp>
#include <lowrank/io/detail/peft_factors.hpp>
#include <lowrank/io/detail/peft_names.hpp>
#include <lowrank/io/detail/text.hpp>
#include <lowrank/io/mapped_file.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/lora/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A LoRA adapter of a whole model.
struct peft_adapter {
    peft_lora_config config = {};
    /// By module path. W' = W + delta with W out x in; if `config.fan_in_fan_out`, the stored weight is W^T.
    std::map<std::string, lora_adapter<float>> modules = {};
    /// Adapters of embedding tables: A is r x tokens, B is dim x r, and the table (tokens x dim) changes by delta^T.
    std::map<std::string, lora_adapter<float>> embeddings = {};
    /// Tensors that replace ones of the base (modules_to_save, trained biases), by their name in the file.
    std::vector<tensor_to_write> extra = {};
    /// The storage types of A and B, for modules where one is not F32; writing returns to them.
    std::map<std::string, std::pair<dtype, dtype>> factor_types = {};
    std::map<std::string, std::string> metadata = {{"format", "pt"}};
    /// What the reader noticed and the user may want to know.
    std::vector<std::string> warnings = {};
};

namespace detail {

/// Opens the weights of an adapter folder, or says why there are none to read.
[[nodiscard]] inline result<checkpoint> open_peft_weights(const std::filesystem::path& folder) {
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

}  // namespace detail

/// Reads an adapter folder.
///
/// \return `not_found`; `invalid_format` for a broken file, a factor without its partner; `mismatch` for ranks that
///         disagree, transposed factors, a pattern that matches no module; `non_finite`; `unsupported` for pickles,
///         convolutions, DoRA and whatever else would change the result. The sentence names the tensor or key.
/// \cost   one copy of the factors in float.
[[nodiscard]] inline result<peft_adapter> read_peft(const std::filesystem::path& folder,
                                                    const peft_read_options& opt = {}) {
    std::error_code ignored;
    const auto config_path = folder / "adapter_config.json";
    if (!std::filesystem::exists(config_path, ignored)) {
        std::string text = "there is no adapter_config.json in " + detail::path_in_quotes(folder);
        for (auto entry = std::filesystem::directory_iterator(folder, ignored);
             entry != std::filesystem::directory_iterator(); entry.increment(ignored)) {
            if (std::filesystem::exists(entry->path() / "adapter_config.json", ignored)) {
                text += "; its sub-folder " + detail::path_in_quotes(entry->path().filename()) + " has one";
                break;
            }
        }
        return status{errc::not_found, std::move(text)};
    }
    const auto text = mapped_file::open(config_path, {.map = false});
    if (!text) {
        return text.error();
    }
    peft_adapter out;
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

    using part = detail::peft_name::part;
    std::map<std::string, detail::peft_factors> modules;
    std::map<std::string, detail::peft_factors> embeddings;
    for (const checkpoint::place& p : file->tensors()) {
        auto name = detail::parse_peft_name(p.info->name);
        const auto fail = [&](errc code, const char* says) {
            return detail::in_file(path, {code, "tensor " + detail::in_quotes(p.info->name) + " " + says});
        };
        switch (name.what) {
            case part::lora_A:
            case part::lora_B:
            case part::embedding_A:
            case part::embedding_B: {
                const bool is_table = name.what == part::embedding_A || name.what == part::embedding_B;
                detail::peft_factors& f = (is_table ? embeddings : modules)[std::move(name.module)];
                auto& slot = name.what == part::lora_A || name.what == part::embedding_A ? f.a : f.b;
                if (slot != nullptr) {
                    return fail(errc::invalid_format, "is there a second time under another spelling");
                }
                slot = &p;
                break;
            }
            case part::magnitude: return fail(errc::unsupported, "belongs to DoRA, which is not supported");
            case part::bias: return fail(errc::unsupported, "is a bias on lora_B, which is not supported");
            case part::other: {
                const auto bytes = file->bytes(p);
                auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
                out.extra.push_back({p.info->name, p.info->type, p.info->shape, *copy, copy});
            }
        }
    }
    if (modules.empty() && embeddings.empty()) {
        return detail::in_file(path, {errc::invalid_format, "the file holds no LoRA tensors"});
    }
    const auto rules = detail::peft_rules::compile(out.config, detail::names_of(modules, embeddings));
    if (!rules) {
        return detail::in_file(config_path, rules.error());
    }
    std::size_t silent = 0;
    for (auto* group : {&modules, &embeddings}) {
        for (const auto& [module, factors] : *group) {
            auto adapter = detail::join_factors(*file, factors, module, out.config, *rules);
            if (!adapter) {
                return detail::in_file(path, adapter.error());
            }
            silent += detail::all_zero(adapter->lora_B) ? 1 : 0;
            const std::pair types(factors.a->info->type, factors.b->info->type);
            if (types != std::pair(dtype::f32, dtype::f32)) {
                out.factor_types.emplace(module, types);
            }
            (group == &modules ? out.modules : out.embeddings).emplace(module, std::move(*adapter));
        }
    }
    if (silent != 0) {
        out.warnings.push_back("lora_B is zero in " + std::to_string(silent) + " of " +
                               std::to_string(out.modules.size() + out.embeddings.size()) +
                               " modules, which therefore change nothing");
    }
    if (!out.extra.empty()) {
        out.warnings.push_back("the file holds " + std::to_string(out.extra.size()) +
                               " tensors that replace ones of the base, such as " +
                               detail::in_quotes(out.extra.front().name) + "; they are not part of the LoRA modules");
    }
    return out;
}

/// A configuration that fits `modules`: the most frequent rank and alpha, patterns for the others, their last names as
/// targets. The other fields are those of `base`.
/// \pre all modules agree on use_rslora.
[[nodiscard]] peft_lora_config peft_config_for(const std::map<std::string, lora_adapter<float>>& modules,
                                               peft_lora_config base = {});

/// Writes an adapter folder, which is created if need be.
///
/// \return `mismatch` if the configuration does not describe the modules (`peft_config_for` makes one that does);
///         `non_finite`; `io_failure`. On failure an older adapter in the folder stays as it was.
[[nodiscard]] status write_peft(const std::filesystem::path& folder, const peft_adapter& adapter,
                                const write_options& opt = {});

namespace detail {

/// A factor as a tensor of the file, rounded once if its storage type is narrower than float.
[[nodiscard]] inline tensor_to_write factor_tensor(std::string name, dtype type, const matrix<float>& x) {
    switch (type) {
        case dtype::f16: return tensor_of(std::move(name), row_matrix<half>(x.cast<half>()));
        case dtype::bf16: return tensor_of(std::move(name), row_matrix<bfloat16>(x.cast<bfloat16>()));
        case dtype::f64: return tensor_of(std::move(name), row_matrix<double>(x.cast<double>()));
        default: return tensor_of(std::move(name), x);
    }
}

[[nodiscard]] inline status check_against_config(const std::string& module, const lora_adapter<float>& lora,
                                                 const peft_lora_config& c, const peft_rules& rules) {
    const auto differs = [&](const char* what, const std::string& has, const std::string& says) {
        return status{errc::mismatch, "module " + in_quotes(module) + " has " + what + " " + has +
                                          ", the configuration says " + says +
                                          "; use peft_config_for to make one that fits"};
    };
    if (lora.lora_B.cols() != lora.rank()) {
        return {errc::mismatch, "module " + in_quotes(module) + " has factors of different rank"};
    }
    if (lora.rank() != rules.r_for(module)) {
        return differs("rank", std::to_string(lora.rank()), std::to_string(rules.r_for(module)));
    }
    if (lora.lora_alpha != rules.alpha_for(module)) {
        return differs("lora_alpha", in_words(lora.lora_alpha), in_words(rules.alpha_for(module)));
    }
    if (lora.use_rslora != c.use_rslora) {
        return differs("use_rslora", lora.use_rslora ? "true" : "false", c.use_rslora ? "true" : "false");
    }
    if (!all_finite(lora.lora_A) || !all_finite(lora.lora_B)) {
        return {errc::non_finite, "module " + in_quotes(module) + " holds NaN or infinity"};
    }
    return {};
}

}  // namespace detail

inline peft_lora_config peft_config_for(const std::map<std::string, lora_adapter<float>>& modules,
                                        peft_lora_config base) {
    base.rank_pattern.clear();
    base.alpha_pattern.clear();
    base.target_modules.clear();
    base.target_pattern.clear();
    if (modules.empty()) {
        return base;
    }
    std::map<index, std::size_t> ranks;
    std::map<double, std::size_t> alphas;
    std::map<std::string, std::size_t> targets;
    base.use_rslora = modules.begin()->second.use_rslora;
    base.lora_dropout = modules.begin()->second.lora_dropout;
    for (const auto& [module, lora] : modules) {
        detail::expects(lora.use_rslora == base.use_rslora, "peft_config_for: the modules must agree on use_rslora");
        ++ranks[lora.rank()];
        ++alphas[lora.lora_alpha];
        ++targets[module.substr(module.rfind('.') + 1)];  // npos + 1 is 0: the whole path
    }
    const auto most = [](const auto& counts) {
        return std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) { return a.second < b.second; })
            ->first;
    };
    base.r = most(ranks);
    base.lora_alpha = most(alphas);
    for (const auto& [name, count] : targets) {
        base.target_modules.push_back(name);
    }
    for (const auto& [module, lora] : modules) {
        // Anchored and escaped, so that the key means this module and no other.
        std::string key = "^";
        for (const char c : module) {
            const bool plain = static_cast<unsigned char>(c) >= 0x80 || c == '_' || (c >= '0' && c <= '9') ||
                               (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
            key += plain ? "" : "\\";
            key += c;
        }
        if (lora.rank() != base.r) {
            base.rank_pattern.emplace_back(key, lora.rank());
        }
        if (lora.lora_alpha != base.lora_alpha) {
            base.alpha_pattern.emplace_back(key, lora.lora_alpha);
        }
    }
    return base;
}

inline status write_peft(const std::filesystem::path& folder, const peft_adapter& adapter, const write_options& opt) {
    const auto rules =
        detail::peft_rules::compile(adapter.config, detail::names_of(adapter.modules, adapter.embeddings));
    if (!rules) {
        return rules.error();
    }
    std::vector<tensor_to_write> tensors = adapter.extra;
    for (const auto* group : {&adapter.modules, &adapter.embeddings}) {
        for (const auto& [module, lora] : *group) {
            if (status why = detail::check_against_config(module, lora, adapter.config, *rules); !why) {
                return why;
            }
            const auto at = adapter.factor_types.find(module);
            const auto types = at != adapter.factor_types.end() ? at->second : std::pair(dtype::f32, dtype::f32);
            const std::string path = std::string(detail::peft_prefix) + module;
            const bool is_table = group == &adapter.embeddings;
            tensors.push_back(detail::factor_tensor(path + (is_table ? ".lora_embedding_A" : ".lora_A.weight"),
                                                    types.first, lora.lora_A));
            tensors.push_back(detail::factor_tensor(path + (is_table ? ".lora_embedding_B" : ".lora_B.weight"),
                                                    types.second, lora.lora_B));
        }
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
        if (status why =
                write_safetensors(folder / "adapter_model.safetensors", std::move(tensors), adapter.metadata, opt);
            !why) {
            return why;
        }
        return config->commit();
    };
    status why = write();
    if (!why && !existed) {
        std::filesystem::remove(folder, error);  // only if nothing else is in it
    }
    return why;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_HPP

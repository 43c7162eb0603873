// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ADAPTER_FILES_IPP
#define LOWRANK_IO_FORMATS_ADAPTER_FILES_IPP

#include <lowrank/io/formats/adapter_files.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/formats/detail/lora_parts.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/formats/detail/stated_scaling.hpp>
#include <lowrank/io/formats/diffusers.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/formats/image_names.hpp>
#include <lowrank/io/formats/kohya.hpp>
#include <lowrank/io/formats/loralib.hpp>
#include <lowrank/io/formats/mlx.hpp>
#include <lowrank/io/formats/peft_format.hpp>
#include <lowrank/io/models/base_facts.hpp>
#include <lowrank/io/models/expert_names.hpp>
#include <lowrank/io/models/module_names.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY std::span<const adapter_format> adapter_formats() {
    static const adapter_format all[] = {
        mlx_format(),       peft_format(),          gguf_format(),           kohya_format(),
        diffusers_format(), diffusers_old_format(), diffusers_peft_format(), loralib_format()};
    return all;
}

LOWRANK_BODY result<const adapter_format*> find_adapter_format(std::string_view name,
                                                               std::span<const adapter_format> among) {
    std::string known;
    for (const adapter_format& f : among) {
        if (f.name == name) {
            return &f;
        }
        known += (known.empty() ? "" : ", ") + std::string(f.name);
    }
    return status{errc::unsupported, "there is no adapter format " + detail::in_quotes(name) + "; known: " + known};
}

namespace detail {

LOWRANK_BODY status check_invocation_tokens(const adapter_format& format, const peft_lora_config& config) {
    if (config.alora_invocation_tokens.empty() || format.holds_invocation_tokens) {
        return {};
    }
    return {errc::unsupported, "the adapter applies from its invocation tokens on (aLoRA), which " +
                                   std::string(format.name) + " cannot represent"};
}

}  // namespace detail

LOWRANK_BODY status can_hold(const adapter_format& format, const std::string& path, const peft_module& module,
                             const adapter_write_options& opt) {
    const auto refused = [&](const std::string& what) {
        return status{errc::unsupported, what + ", which " + std::string(format.name) + " cannot represent"};
    };
    if (const tensor_to_write* t = stored_tensor(module)) {
        return format.holds_whole_tensors
                   ? status{}
                   : refused("tensor " + detail::in_quotes(t->name) + " replaces one of the base");
    }
    if (is_plain_table(module)) {
        if (!format.holds_tables) {
            return refused("module " + detail::in_quotes(path) + " is an embedding table");
        }
    } else if (!is_plain_lora(module) && (format.holds == nullptr || !format.holds(module))) {
        return refused("module " + detail::in_quotes(path) + " is adapted by " + kind_of(module));
    }
    return format.fits != nullptr && opt.model != nullptr ? format.fits(path, module, opt) : status{};
}

LOWRANK_BODY status can_hold(const adapter_format& format, const peft_adapter& adapter,
                             const adapter_write_options& opt) {
    if (status why = detail::check_invocation_tokens(format, adapter.config); !why) {
        return why;
    }
    for (const auto& [path, module] : adapter.modules) {
        if (status why = can_hold(format, path, module, opt); !why) {
            return why;
        }
    }
    return {};
}

namespace detail {

LOWRANK_BODY result<adapter_file> adapter_of(lora_file file, const adapter_read_options& opt,
                                             const adapter_format& format) {
    adapter_file out{.format = std::move(file.format), .unmapped = std::move(file.unmapped)};
    out.adapter.warnings = std::move(file.warnings);
    const module_names base(opt.modules);
    if (!base.empty()) {  // of an image model, names of another tool
        auto fitted = fit_image_modules(std::move(file.modules), base);
        if (!fitted) {
            return fitted.error();
        }
        file.modules = std::move(fitted->modules);
        out.renamed = std::move(fitted->renamed);
    }
    std::vector<std::string> nowhere;  // modules that the base has not; only the first is looked at closely
    const auto place = [&](const std::string& name) -> std::optional<std::string> {
        std::string module = name.starts_with(peft_prefix) ? name.substr(peft_prefix.size()) : name;
        const bool is_flat = format.has_flat_names && module.find('.') == std::string::npos;
        if (!base.empty()) {
            auto found = is_flat ? base.find_flat_if_there(module) : base.find_if_there(module);
            if (!found && is_flat) {  // nothing but the base says what the name means
                out.unmapped.push_back(name + ": " + base.find_flat(module).error().message);
                return std::nullopt;
            }
            const auto expert = found ? std::nullopt : find_expert_part(module);
            if (!found && !(expert && base.find_if_there(expert->stack))) {
                nowhere.push_back(module);
            }
            module = found ? std::move(*found) : module;
        }
        if (module != name) {
            out.renamed.emplace_back(name, module);
        }
        return module;
    };
    std::string twice;
    const peft_module* first = nullptr;
    for (auto& [name, module] : file.modules) {
        const auto placed = place(name);
        if (!placed) {
            continue;
        }
        const auto [at, is_new] = out.adapter.modules.emplace(*placed, std::move(module));
        twice = is_new ? twice : *placed;
        first = first == nullptr ? &at->second : first;
        if (type_of(*first) != type_of(at->second)) {
            return status{errc::unsupported, "the file holds adapters of several types (" + kind_of(*first) + " and " +
                                                 kind_of(at->second) +
                                                 "); a PEFT adapter has one, so it cannot be the hub of a conversion"};
        }
    }
    if (out.adapter.modules.empty()) {
        return status{errc::mismatch, "no module of the file has a place in the model: " + out.unmapped.back()};
    }
    if (nowhere.size() == out.adapter.modules.size()) {
        return status{errc::mismatch,
                      "no module of the file has a place in the model: " + base.find(nowhere.front()).error().message};
    }
    if (!twice.empty()) {
        return status{errc::invalid_format, "two names of the file mean the module " + in_quotes(twice)};
    }
    if (!nowhere.empty()) {
        out.adapter.warnings.push_back(base.find(nowhere.front()).error().message +
                                       (nowhere.size() > 1
                                            ? ", as of " + std::to_string(nowhere.size() - 1) + " more of the adapter"
                                            : std::string()));
    }
    out.adapter.config = peft_config_for(out.adapter);
    return out;
}

}  // namespace detail

LOWRANK_BODY result<lora_file> read_lora_file(const std::filesystem::path& path, const lora_file_options& opt,
                                              std::span<const adapter_format> among) {
    const auto file = checkpoint::open(path);
    if (!file) {
        return file.error();
    }
    const auto failed = [&](errc code, std::string text) { return detail::in_file(path, {code, std::move(text)}); };
    lora_file out;
    out.metadata = file->shards().empty() ? out.metadata : file->shards().front().file.metadata();
    auto sorted = detail::sort_lora_file(*file, among);
    if (!sorted) {
        return detail::in_file(path, sorted.error());
    }
    const adapter_format* format = sorted->format;
    if (format == nullptr) {
        for (const auto& [module, parts] : sorted->modules) {
            if (!parts.unsupported.empty()) {
                return failed(errc::unsupported, "module " + detail::in_quotes(module) + ": " + parts.unsupported);
            }
        }
        return failed(errc::invalid_format,
                      "no LoRA tensors were found in any known naming; its tensors are " + detail::some_names(*file));
    }
    out.format = format->name;
    for (const auto* p : sorted->foreign) {
        out.unmapped.push_back(p->info->name + ": not a part of an adapter that is known");
    }
    const auto stated = opt.lora_alpha || opt.scaling
                            ? result<detail::found_scaling>(detail::found_scaling{})
                            : detail::find_stated_scaling(path, out.metadata, format->has_scaling_elsewhere, opt.peft);
    if (!stated) {
        return detail::in_file(path, stated.error());
    }
    std::size_t said = 0;
    std::size_t assumed = 0;
    // Alpha of a module whose tensors have none; nothing means r.
    const auto alpha_without_tensor = [&](const std::string& module,
                                          index rank) -> result<std::optional<detail::stated_alpha>> {
        using found = std::optional<detail::stated_alpha>;
        if (opt.lora_alpha) {
            return found(detail::stated_alpha{*opt.lora_alpha});
        }
        if (opt.scaling || stated->mlx_scale) {
            return found(
                detail::stated_alpha{(opt.scaling ? *opt.scaling : *stated->mlx_scale) * static_cast<double>(rank)});
        }
        auto alpha = stated->peft ? stated->peft->alpha_for(module, rank) : result<found>(found());
        if (alpha) {
            ++(*alpha ? said : assumed);
        }
        return alpha;
    };
    for (auto& entry : sorted->modules) {
        const std::string& module = entry.first;
        auto& parts = entry.second;
        const auto leave_out = [&](const std::string& why) {
            for (const auto* p : parts.all) {
                out.unmapped.push_back(p->info->name + ": " + why);
            }
        };
        const bool is_two = parts.other && (parts.a != nullptr || parts.b != nullptr || parts.magnitude != nullptr);
        const bool is_none = !parts.other && parts.a == nullptr && parts.b == nullptr;
        if (!parts.unsupported.empty() || is_two || is_none || (parts.other && format->join == nullptr)) {
            leave_out(!parts.unsupported.empty() ? parts.unsupported
                      : is_two                   ? "two types of adapter in one module"
                      : is_none                  ? "belongs to no adapter that is known"
                                                 : "a type of adapter that " + out.format + " has no reader for");
            continue;
        }
        const auto alpha = detail::scalar_of(*file, parts.alpha);
        if (!alpha) {
            return detail::in_file(path, alpha.error());
        }
        const bool is_stated = alpha->has_value();
        const std::optional<double> own = is_stated && **alpha != 0 ? *alpha : std::nullopt;  // as kohya: 0 means r
        if (parts.other) {
            auto made = format->join(*parts.other, own);
            const index rank = made ? made->kind().facts(made->data()).r : 0;
            if (rank != 0 && !is_stated) {  // of a kind with an alpha
                const auto elsewhere = alpha_without_tensor(module, rank);
                made = !elsewhere   ? result<peft_module>(elsewhere.error())
                       : *elsewhere ? format->join(*parts.other, (*elsewhere)->alpha)
                                    : std::move(made);
            }
            if (!made) {
                return detail::in_file(path, made.error());
            }
            out.modules.emplace(module, std::move(*made));
            continue;
        }
        if (parts.a == nullptr || parts.b == nullptr) {
            return failed(errc::invalid_format,
                          "tensor " + detail::in_quotes((parts.a != nullptr ? parts.a : parts.b)->info->name) +
                              " has no partner: the file lacks the other factor of module " +
                              detail::in_quotes(module));
        }
        if (format->experts_of != nullptr && parts.a->info->shape.size() == 3) {
            auto stack = detail::join_expert_parts(*file, parts);
            if (!stack) {
                leave_out(stack.error().message);
                continue;
            }
            const auto alpha_of = own ? result<std::optional<detail::stated_alpha>>(detail::stated_alpha{*own})
                                      : alpha_without_tensor(module, stack->front().rank());
            if (!alpha_of) {
                return detail::in_file(path, alpha_of.error());
            }
            const auto names = format->experts_of(module, stack->size());
            for (std::size_t e = 0; e < stack->size(); ++e) {
                lora_adapter<float>& lora = (*stack)[e];
                lora.lora_alpha = *alpha_of ? (*alpha_of)->alpha : static_cast<double>(lora.rank());
                lora.use_rslora = *alpha_of && (*alpha_of)->use_rslora;
                out.modules.emplace(names[e], std::move(lora));
            }
            continue;
        }
        auto joined = detail::join_lora_parts(*file, parts, format->is_transposed);
        if (!joined && joined.error().code == errc::unsupported) {
            leave_out(joined.error().message);
            continue;
        }
        if (!joined) {
            return detail::in_file(path, detail::in_context("module " + detail::in_quotes(module), joined.error()));
        }
        if (own) {
            joined->lora.lora_alpha = *own;
        } else if (!is_stated) {
            const auto other = alpha_without_tensor(module, joined->lora.rank());
            if (!other) {
                return detail::in_file(path, other.error());
            }
            if (*other) {
                joined->lora.lora_alpha = (*other)->alpha;
                joined->lora.use_rslora = (*other)->use_rslora;
            }
        }
        joined->is_table = joined->is_table || (format->is_transposed && is_table_name(module));
        out.modules.emplace(module, joined->is_plain() && !joined->is_table ? peft_module(std::move(joined->lora))
                                                                            : peft_module(std::move(*joined)));
    }
    if (out.modules.empty()) {
        return failed(errc::unsupported, "no module of the file can be read: " + out.unmapped.front());
    }
    if (said != 0) {
        out.warnings.push_back("the scaling of " + std::to_string(said) + " modules is that of " + stated->peft->where);
    }
    if (assumed != 0) {
        out.warnings.push_back(
            "no alpha found for " + std::to_string(assumed) +
            " modules, in the tensors, the header or an adapter_config.json beside the file: scaling "
            "1 assumed");
    }
    return out;
}

LOWRANK_BODY status write_lora_file(const std::filesystem::path& path,
                                    const std::map<std::string, peft_module>& modules, const lora_write_options& opt,
                                    std::span<const adapter_format> among) {
    const auto found = find_adapter_format(opt.format, among);
    if (!found || (*found)->emit == nullptr) {
        return found ? status{errc::unsupported, opt.format + " is no file of safetensors"} : found.error();
    }
    const adapter_format& format = **found;
    const auto is_plain = [](const peft_module& module) { return is_plain_lora(module) && !is_plain_table(module); };
    const lora_adapter<float>* first = nullptr;
    bool has_one_scaling = true;
    for (const auto& entry : modules) {
        if (is_plain(entry.second)) {
            const lora_adapter<float>& lora = lora_of(entry.second);
            detail::expects(lora.lora_B.cols() == lora.rank(), "write_lora_file: factors must have one rank");
            first = first == nullptr ? &lora : first;
            has_one_scaling = has_one_scaling && lora.rank() == first->rank() &&
                              detail::scaling_of(lora) == detail::scaling_of(*first);
        }
    }
    lora_tensors out{.tensors = {opt.more.begin(), opt.more.end()}};
    std::map<std::string, const std::string*> written;  // by tensor, the module that it is of
    for (const auto& [name, module] : modules) {
        const std::size_t before = out.tensors.size();
        status why;
        if (is_plain(module)) {
            const lora_adapter<float>& lora = lora_of(module);
            lora_adapter<float> scaled;
            if (format.holds_scaling_in_header && !has_one_scaling) {
                scaled = {.lora_A = lora.lora_A,
                          .lora_B = detail::scaled_factor(lora.lora_B, detail::scaling_of(lora)),
                          .lora_alpha = static_cast<double>(lora.rank())};
            }
            why = format.emit(out, name, scaled.rank() != 0 ? scaled : lora, opt);
        } else if (format.emit_other != nullptr && format.holds != nullptr && format.holds(module)) {
            why = format.emit_other(out, name, module, opt);
        } else {
            why = detail::cannot_represent(opt.format, name, kind_of(module));
        }
        if (!why) {
            return why;
        }
        for (std::size_t i = before; i < out.tensors.size(); ++i) {
            const auto [at, is_new] = written.emplace(out.tensors[i].name, &name);
            if (!is_new) {
                return {errc::unsupported, "modules " + detail::in_quotes(*at->second) + " and " +
                                               detail::in_quotes(name) + " would both have the tensor " +
                                               detail::in_quotes(at->first) + " in a file of " + opt.format +
                                               "; choose a format whose names keep their dots"};
            }
        }
    }
    if (format.holds_scaling_in_header && first != nullptr) {
        const auto rank = static_cast<double>(first->rank());
        out.metadata["alpha"] = detail::number_in_words(has_one_scaling ? detail::scaling_of(*first) * rank : rank);
        out.metadata["rank"] = std::to_string(first->rank());
        if (!has_one_scaling) {
            out.metadata = {{"format", "pt"}};
        }
    }
    if (format.header != nullptr) {
        out.metadata = format.header(modules);
    }
    return write_safetensors(path, std::move(out.tensors), out.metadata, opt.write);
}

LOWRANK_BODY result<adapter_file> read_adapter(const std::filesystem::path& path, const adapter_read_options& opt,
                                               std::span<const adapter_format> among) {
    std::error_code ignored;
    adapter_source source{.path = path, .is_folder = std::filesystem::is_directory(path, ignored)};
    std::optional<mapped_file> bytes;
    if (!source.is_folder) {
        auto file = mapped_file::open(path);
        if (!file) {
            return file.error();
        }
        bytes = std::move(*file);
        source.head = {reinterpret_cast<const char*>(bytes->bytes().data()),
                       std::min<std::size_t>(bytes->bytes().size(), 64)};
    }
    const auto name = path.filename();
    if (!source.is_folder && !opt.lora_alpha &&
        (name == "adapter_model.safetensors" || name == "adapters.safetensors") &&
        std::filesystem::exists(path.parent_path() / "adapter_config.json", ignored)) {
        source = {.path = path.parent_path(), .is_folder = true};  // the file of a folder, by its own name
        source.path = source.path.empty() ? std::filesystem::path(".") : source.path;
    }
    for (const adapter_format& f : among) {
        if (f.recognizes != nullptr && f.recognizes(source)) {
            return f.read(source.path, opt);
        }
    }
    auto file = read_lora_file(path, {.lora_alpha = opt.lora_alpha, .peft = opt.peft}, among);
    if (!file) {
        return file.error();
    }
    const adapter_format& format = **find_adapter_format(file->format, among);
    return detail::adapter_of(std::move(*file), opt, format);
}

LOWRANK_BODY status write_adapter(const std::filesystem::path& path, const peft_adapter& adapter,
                                  std::string_view format, const adapter_write_options& opt,
                                  std::span<const adapter_format> among) {
    const auto to = find_adapter_format(format, among);
    if (!to) {
        return to.error();
    }
    if (status why = can_hold(**to, adapter, opt); !why) {
        return why;
    }
    return (*to)->write != nullptr
               ? (*to)->write(path, adapter, opt)
               : write_lora_file(path, adapter.modules,
                                 {.format = std::string(format), .kohya_prefix = opt.kohya_prefix, .write = opt.write},
                                 among);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_ADAPTER_FILES_IPP

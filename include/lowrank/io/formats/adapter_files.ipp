// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ADAPTER_FILES_IPP
#define LOWRANK_IO_FORMATS_ADAPTER_FILES_IPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/diffusers.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/formats/kohya.hpp>
#include <lowrank/io/formats/loralib.hpp>
#include <lowrank/io/formats/mlx.hpp>
#include <lowrank/io/formats/peft_format.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/detail/peft_names.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY std::span<const adapter_format> adapter_formats() {
    static const adapter_format all[] = {mlx_format(),       peft_format(),          gguf_format(),   kohya_format(),
                                         diffusers_format(), diffusers_old_format(), loralib_format()};
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

LOWRANK_BODY status can_hold(const adapter_format& format, const peft_adapter& adapter) {
    const auto refused = [&](const std::string& what) {
        return status{errc::unsupported, what + ", which " + std::string(format.name) + " cannot represent"};
    };
    if (!adapter.extra.empty() && !format.holds_whole_tensors) {
        return refused("tensor " + detail::in_quotes(adapter.extra.front().name) + " replaces one of the base");
    }
    if (!adapter.embeddings.empty() && !format.holds_tables) {
        return refused("module " + detail::in_quotes(adapter.embeddings.begin()->first) + " is an embedding table");
    }
    if (!adapter.config.alora_invocation_tokens.empty() && !format.holds_invocation_tokens) {
        return refused("the adapter applies from its invocation tokens on (aLoRA)");
    }
    for (const auto& [module, relative] : adapter.relatives) {
        if (format.holds == nullptr || !format.holds(relative)) {
            return refused("module " + detail::in_quotes(module) + " is adapted by " + kind_of(relative));
        }
    }
    return {};
}

namespace detail {

/// The tensors of one module while they are collected.
struct lora_parts {
    const checkpoint::place* a = nullptr;
    const checkpoint::place* b = nullptr;
    const checkpoint::place* alpha = nullptr;
    const checkpoint::place* magnitude = nullptr;
    std::optional<relative_parts> relative = {};
    std::vector<const checkpoint::place*> all = {};
    const char* unsupported_part = nullptr;  ///< Why the module cannot be read, whatever else there is of it.
};

/// The number of a scalar tensor, if there is one.
LOWRANK_API [[nodiscard]] result<std::optional<double>> scalar_of(const checkpoint& file, const checkpoint::place* p) {
    if (p == nullptr) {
        return std::optional<double>();
    }
    const auto value = file.vector<double>(p->info->name);
    if (!value || value->size() != 1 || !is_finite((*value)(0))) {
        return status{errc::invalid_format, "tensor " + in_quotes(p->info->name) + " must be one finite number"};
    }
    return std::optional((*value)(0));
}

/// DoRA's lengths: of rows, one per output, or of the columns of a matrix, as the shape says.
LOWRANK_API [[nodiscard]] status read_magnitude(const checkpoint& file, const checkpoint::place& p, peft_lora& to) {
    const tensor_info& t = *p.info;
    to.magnitude_of_inputs = t.shape.size() > 1 && t.shape[0] == 1 && t.shape[1] != 1;
    if (t.shape.empty() || (to.magnitude_of_inputs && !to.kernel.empty())) {
        return status{errc::unsupported, "its dora_scale of shape " + shape_in_words(t.shape) +
                                             " holds lengths of the channels of a convolution (LyCORIS's "
                                             "wd_on_output=False), which is not supported"};
    }
    auto lengths =
        finite_vector(file, p, static_cast<std::uint64_t>(to.magnitude_of_inputs ? to.lora.cols() : to.lora.rows()));
    if (!lengths) {
        return lengths.error();
    }
    to.magnitude = std::move(*lengths);
    return {};
}

/// Two factors as one module, shapes deciding: [r, in, k...] and [out, r, 1...], or transposed matrices (MLX).
LOWRANK_API [[nodiscard]] result<peft_lora> join_lora_parts(const checkpoint& file, const lora_parts& p,
                                                            bool transposed) {
    const tensor_info& a = *p.a->info;
    const tensor_info& b = *p.b->info;
    for (const tensor_info* t : {&a, &b}) {
        if (t->shape.size() < 2 || t->shape.size() > 5) {
            return status{errc::unsupported, "has shape " + shape_in_words(t->shape) + "; it is no layer"};
        }
    }
    const bool kernel_in_b = std::any_of(b.shape.begin() + 2, b.shape.end(), [](auto n) { return n != 1; });
    if (kernel_in_b || a.shape.size() != b.shape.size()) {
        return status{errc::unsupported,
                      "has shape " + shape_in_words(b.shape) + "; a kernel in this factor is not supported"};
    }
    peft_lora out;
    out.kernel.assign(a.shape.begin() + 2, a.shape.end());
    std::uint64_t columns = a.shape[1];
    for (const std::uint64_t n : out.kernel) {
        columns *= n;
    }
    if (columns == a.shape[1]) {
        out.kernel.clear();  // one by one: linear
    }
    auto right = finite_matrix(file, *p.a, a.shape[0], columns);
    auto left = finite_matrix(file, *p.b, b.shape[0], b.shape[1]);
    if (!right || !left) {
        return right ? left.error() : right.error();
    }
    out.lora.lora_A = transposed ? matrix<float>(right->transpose()) : std::move(*right);
    out.lora.lora_B = transposed ? matrix<float>(left->transpose()) : std::move(*left);
    out.lora.lora_alpha = static_cast<double>(out.lora.rank());
    return out;
}

LOWRANK_BODY result<adapter_file> adapter_of(lora_file file, const adapter_read_options& opt,
                                             const adapter_format& format) {
    adapter_file out{.format = std::move(file.format), .unmapped = std::move(file.unmapped)};
    const auto place = [&](const std::string& name) {
        std::string module = format.module_of != nullptr     ? format.module_of(name, opt)
                             : name.starts_with(peft_prefix) ? name.substr(peft_prefix.size())
                                                             : name;
        if (module != name) {
            out.renamed.emplace_back(name, module);
        }
        return module;
    };
    bool fits = true;
    for (auto& [name, lora] : file.modules) {
        fits = out.adapter.modules.emplace(place(name), std::move(lora)).second && fits;
    }
    for (auto& [name, relative] : file.relatives) {
        const std::string module = place(name);
        fits = !out.adapter.modules.contains(module) && fits;
        fits = out.adapter.relatives.emplace(module, std::move(relative)).second && fits;
    }
    if (!fits) {
        return status{errc::invalid_format, "two names of the file mean one module"};
    }
    std::string_view type;
    for (const auto& [module, relative] : out.adapter.relatives) {
        if (!type.empty() && type != type_of(relative)) {
            return status{errc::unsupported, "the file holds adapters of several types (" + std::string(type) +
                                                 " and " + std::string(type_of(relative)) +
                                                 "); a PEFT adapter has one, so it cannot be the hub of a conversion"};
        }
        type = type_of(relative);
    }
    if (!out.adapter.modules.empty() && !type.empty() && type != "LORA") {
        return status{errc::unsupported, "the file holds plain LoRA beside modules of another type (" +
                                             std::string(type) +
                                             "); a PEFT adapter has one, so it cannot be the hub of a conversion"};
    }
    out.adapter.config = peft_config_for(out.adapter);
    return out;
}

}  // namespace detail

LOWRANK_BODY result<lora_file> read_lora_file(const std::filesystem::path& path, const lora_file_options& opt,
                                              std::span<const adapter_format> among) {
    using part = lora_name::part;
    const auto file = checkpoint::open(path);
    if (!file) {
        return file.error();
    }
    lora_file out;
    out.metadata = file->shards().empty() ? out.metadata : file->shards().front().file.metadata();
    const adapter_format* format = nullptr;
    std::map<std::string, detail::lora_parts> all;
    for (const checkpoint::place& p : file->tensors()) {
        const std::string& tensor = p.info->name;
        lora_name name;
        const adapter_format* of = nullptr;
        for (std::size_t i = 0; i < among.size() && name.what == part::none; ++i) {
            if (among[i].parse != nullptr) {
                of = &among[i];
                name = of->parse(tensor);
            }
        }
        if (name.what == part::none) {
            out.unmapped.push_back(tensor + ": not a part of an adapter that is known");
            continue;
        }
        auto& parts = all[name.module];
        parts.all.push_back(&p);
        if (name.what == part::unsupported) {
            parts.unsupported_part = name.why;
            continue;
        }
        if (name.what != part::alpha && name.what != part::magnitude) {
            if (format != nullptr && format != of) {
                return detail::in_file(path, {errc::invalid_format, "tensor " + detail::in_quotes(tensor) +
                                                                        " is named as in " + std::string(of->name) +
                                                                        ", others as in " + std::string(format->name)});
            }
            format = of;
        }
        if (name.what == part::relative) {
            if (!parts.relative) {
                parts.relative.emplace(*file, name.module);
            }
            parts.relative->add(name.leaf, p);
            continue;
        }
        (name.what == part::a       ? parts.a
         : name.what == part::b     ? parts.b
         : name.what == part::alpha ? parts.alpha
                                    : parts.magnitude) = &p;
    }
    if (format == nullptr) {
        for (const auto& entry : all) {
            if (entry.second.unsupported_part != nullptr) {
                return detail::in_file(path, {errc::unsupported, "module " + detail::in_quotes(entry.first) + ": " +
                                                                     entry.second.unsupported_part});
            }
        }
        return detail::in_file(path, {errc::invalid_format, "no LoRA tensors were found in any known naming"});
    }
    out.format = format->name;
    for (auto& entry : all) {
        const std::string& module = entry.first;
        auto& parts = entry.second;
        const auto leave_out = [&](const std::string& why) {
            for (const auto* p : parts.all) {
                out.unmapped.push_back(p->info->name + ": " + why);
            }
        };
        if (parts.unsupported_part != nullptr) {
            leave_out(parts.unsupported_part);
            continue;
        }
        const auto alpha = detail::scalar_of(*file, parts.alpha);
        if (!alpha) {
            return detail::in_file(path, alpha.error());
        }
        const bool has_alpha = *alpha && **alpha != 0;  // as kohya: 0 means r
        if (parts.relative && (parts.a != nullptr || parts.b != nullptr || parts.magnitude != nullptr)) {
            leave_out("two types of adapter in one module");
            continue;
        }
        if (parts.relative && format->join == nullptr) {
            leave_out("a type of adapter that " + out.format + " has no reader for");
            continue;
        }
        if (parts.relative) {
            auto relative = format->join(*parts.relative, has_alpha ? *alpha : std::nullopt);
            if (!relative) {
                return detail::in_file(path, relative.error());
            }
            out.relatives.emplace(module, std::move(*relative));
            continue;
        }
        if (parts.a == nullptr && parts.b == nullptr) {
            leave_out("belongs to no adapter that is known");
            continue;
        }
        if (parts.a == nullptr || parts.b == nullptr) {
            return detail::in_file(
                path, {errc::invalid_format,
                       "tensor " + detail::in_quotes((parts.a != nullptr ? parts.a : parts.b)->info->name) +
                           " has no partner"});
        }
        auto joined = detail::join_lora_parts(*file, parts, format->is_transposed);
        if (joined && parts.magnitude != nullptr) {
            if (const status why = detail::read_magnitude(*file, *parts.magnitude, *joined); !why) {
                joined = why;
            }
        }
        if (!joined) {
            if (joined.error().code == errc::unsupported) {
                leave_out(joined.error().message);
                continue;
            }
            return detail::in_file(path, joined.error());
        }
        lora_adapter<float>& lora = joined->lora;
        if (lora.lora_A.rows() != lora.lora_B.cols()) {
            return detail::in_file(path,
                                   {errc::mismatch, "module " + detail::in_quotes(module) + " has factors of rank " +
                                                        std::to_string(lora.lora_A.rows()) + " and " +
                                                        std::to_string(lora.lora_B.cols())});
        }
        if (opt.scaling && format->has_scaling_elsewhere) {
            lora.lora_alpha = *opt.scaling * static_cast<double>(lora.rank());
        }
        if (opt.lora_alpha && format->has_scaling_elsewhere) {
            lora.lora_alpha = *opt.lora_alpha;
        }
        if (has_alpha) {
            lora.lora_alpha = **alpha;
        }
        if (joined->kernel.empty() && joined->magnitude.size() == 0) {
            out.modules.emplace(module, std::move(lora));
        } else {
            out.relatives.emplace(module, std::move(*joined));
        }
    }
    return out;
}

LOWRANK_BODY status write_lora_file(const std::filesystem::path& path,
                                    const std::map<std::string, lora_adapter<float>>& modules,
                                    const std::map<std::string, peft_module>& relatives, const lora_write_options& opt,
                                    std::span<const adapter_format> among) {
    const auto found = find_adapter_format(opt.format, among);
    if (!found || (*found)->emit == nullptr) {
        return found ? status{errc::unsupported, opt.format + " is no file of safetensors"} : found.error();
    }
    const adapter_format& format = **found;
    lora_tensors out;
    for (const auto& [module, relative] : relatives) {
        const bool is_held = format.emit_other != nullptr && format.holds != nullptr && format.holds(relative);
        status why =
            is_held ? format.emit_other(out, module, relative, opt)
                    : status{errc::unsupported, "module " + detail::in_quotes(module) + " is adapted by " +
                                                    kind_of(relative) + ", which " + opt.format + " cannot represent"};
        if (!why) {
            return why;
        }
    }
    for (const auto& [module, lora] : modules) {
        detail::expects(lora.lora_B.cols() == lora.rank(), "write_lora_file: factors must have one rank");
        if (status why = format.emit(out, module, lora, opt); !why) {
            return why;
        }
    }
    return write_safetensors(path, std::move(out.tensors), out.metadata, opt.write);
}
LOWRANK_BODY status write_lora_file(const std::filesystem::path& path,
                                    const std::map<std::string, lora_adapter<float>>& modules,
                                    const lora_write_options& opt, std::span<const adapter_format> among) {
    return write_lora_file(path, modules, {}, opt, among);
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
    for (const adapter_format& f : among) {
        if (f.recognizes != nullptr && f.recognizes(source)) {
            return f.read(path, opt);
        }
    }
    auto file = read_lora_file(path, {.lora_alpha = opt.lora_alpha}, among);
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
    if (status why = can_hold(**to, adapter); !why) {
        return why;
    }
    return (*to)->write != nullptr
               ? (*to)->write(path, adapter, opt)
               : write_lora_file(path, adapter.modules, adapter.relatives,
                                 {.format = std::string(format), .kohya_prefix = opt.kohya_prefix, .write = opt.write},
                                 among);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_ADAPTER_FILES_IPP

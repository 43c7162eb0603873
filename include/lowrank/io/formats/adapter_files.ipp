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
#include <lowrank/io/peft/detail/peft_reader.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

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
    if (!adapter.config.alora_invocation_tokens.empty() && !format.holds_invocation_tokens) {
        return refused("the adapter applies from its invocation tokens on (aLoRA)");
    }
    for (const auto& [path, module] : adapter.modules) {
        if (const tensor_to_write* t = stored_tensor(module)) {
            if (!format.holds_whole_tensors) {
                return refused("tensor " + detail::in_quotes(t->name) + " replaces one of the base");
            }
        } else if (is_plain_table(module)) {
            if (!format.holds_tables) {
                return refused("module " + detail::in_quotes(path) + " is an embedding table");
            }
        } else if (!is_plain_lora(module) && (format.holds == nullptr || !format.holds(module))) {
            return refused("module " + detail::in_quotes(path) + " is adapted by " + kind_of(module));
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
    std::optional<peft_parts> other = {};
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

/// A magnitude: lengths of rows, one per output, or of the columns of a matrix, as the shape says.
LOWRANK_API [[nodiscard]] status read_magnitude(const checkpoint& file, const checkpoint::place& p, peft_lora& to) {
    const tensor_info& t = *p.info;
    to.magnitude_of_inputs = t.shape.size() > 1 && t.shape[0] == 1 && t.shape[1] != 1;
    if (t.shape.empty() || (to.magnitude_of_inputs && !to.kernel.empty())) {
        return status{errc::unsupported, "its " + std::string(magnitude_names::lycoris) + " of shape " +
                                             shape_in_words(t.shape) +
                                             " holds lengths of the channels of a convolution (LyCORIS's "
                                             "wd_on_output=False), which is not supported"};
    }
    peft_parts parts(t.name);
    parts.add(t.name, t, file.bytes(p));
    to.magnitude = parts.take_vector(t.name, to.magnitude_of_inputs ? to.lora.cols() : to.lora.rows());
    return parts.why;
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
    peft_parts parts(a.name);
    parts.add(a.name, a, file.bytes(*p.a));
    parts.add(b.name, b, file.bytes(*p.b));
    out.lora.lora_A = parts.take(a.name);
    out.lora.lora_B = parts.take(b.name);
    if (!parts.why) {
        return parts.why;
    }
    if (transposed) {
        out.lora.lora_A.transposeInPlace();
        out.lora.lora_B.transposeInPlace();
    }
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
    const peft_module* first = nullptr;
    for (auto& [name, module] : file.modules) {
        const auto [at, is_new] = out.adapter.modules.emplace(place(name), std::move(module));
        if (!is_new) {
            return status{errc::invalid_format, "two names of the file mean one module"};
        }
        first = first == nullptr ? &at->second : first;
        if (type_of(*first) != type_of(at->second)) {
            return status{errc::unsupported, "the file holds adapters of several types (" + kind_of(*first) + " and " +
                                                 kind_of(at->second) +
                                                 "); a PEFT adapter has one, so it cannot be the hub of a conversion"};
        }
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
        if (name.what == part::other) {
            if (!parts.other) {
                parts.other.emplace(name.module);
            }
            parts.other->add(name.leaf, *p.info, file->bytes(p));
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
        if (parts.other && (parts.a != nullptr || parts.b != nullptr || parts.magnitude != nullptr)) {
            leave_out("two types of adapter in one module");
            continue;
        }
        if (parts.other && format->join == nullptr) {
            leave_out("a type of adapter that " + out.format + " has no reader for");
            continue;
        }
        if (parts.other) {
            auto joined = format->join(*parts.other, has_alpha ? *alpha : std::nullopt);
            if (!joined) {
                return detail::in_file(path, joined.error());
            }
            out.modules.emplace(module, std::move(*joined));
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
        out.modules.emplace(module,
                            joined->is_plain() ? peft_module(std::move(lora)) : peft_module(std::move(*joined)));
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
    lora_tensors out;
    for (const auto& [name, module] : modules) {
        status why;
        if (is_plain_lora(module) && !is_plain_table(module)) {
            const lora_adapter<float>& lora = lora_of(module);
            detail::expects(lora.lora_B.cols() == lora.rank(), "write_lora_file: factors must have one rank");
            why = format.emit(out, name, lora, opt);
        } else if (format.emit_other != nullptr && format.holds != nullptr && format.holds(module)) {
            why = format.emit_other(out, name, module, opt);
        } else {
            why = {errc::unsupported, "module " + detail::in_quotes(name) + " is adapted by " + kind_of(module) +
                                          ", which " + opt.format + " cannot represent"};
        }
        if (!why) {
            return why;
        }
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
               : write_lora_file(path, adapter.modules,
                                 {.format = std::string(format), .kohya_prefix = opt.kohya_prefix, .write = opt.write},
                                 among);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_ADAPTER_FILES_IPP

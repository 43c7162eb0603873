// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_LORA_FORMATS_HPP
#define LOWRANK_IO_FORMATS_LORA_FORMATS_HPP

/// \file
/// LoRA files of other tools: kohya and ComfyUI, diffusers old and new, MLX, loralib.
///
///     auto file = lowrank::read_lora_file("style.safetensors");      // the names decide what it is
///     for (const std::string& name : file->unmapped) ...             // and what it was not understood to be
///     auto why = lowrank::write_lora_file("style-kohya.safetensors", file->modules, {.format = lora_format::kohya});
///
/// Shapes and alpha are those of the tensors; no configuration is believed. Names as in kohya-ss/sd-scripts,
/// huggingface/diffusers, ml-explore/mlx-lm and microsoft/LoRA.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/formats/detail/lora_names.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A LoRA file as modules, with a report of what it held.
struct lora_file {
    lora_format format = lora_format::peft;
    std::map<std::string, lora_adapter<float>> modules = {};  ///< By the name the file uses, without suffix.
    std::map<std::string, peft_module> relatives = {};        ///< DoRA, convolutions, LoHa and LoKr (LyCORIS).
    std::vector<std::string> unmapped = {};                   ///< Tensors that were not understood, and why.
    std::map<std::string, std::string> metadata = {};
};

struct lora_file_options {
    /// Numerator of the scaling where the file has none (PEFT, MLX, loralib): alpha / r. Without it the scaling is 1.
    std::optional<double> lora_alpha = std::nullopt;
    /// The same as a scaling (MLX's scale).
    std::optional<double> scaling = std::nullopt;
};

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
template <class = on_use>
[[nodiscard]] result<std::optional<double>> scalar_of(const checkpoint& file, const checkpoint::place* p) {
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
template <class = on_use>
[[nodiscard]] status read_magnitude(const checkpoint& file, const checkpoint::place& p, peft_lora& to) {
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
template <class = on_use>
[[nodiscard]] result<peft_lora> join_lora_parts(const checkpoint& file, const lora_parts& p, bool transposed) {
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

}  // namespace detail

/// Reads a LoRA file of any of the formats. What is not understood (norms, full differences) is
/// listed in `unmapped` with the reason.
///
/// \return `not_found`; `invalid_format` for a broken file, names of two formats in one file, a factor without its
///         partner, a file without LoRA; `mismatch` for factors of different rank; `non_finite`.
template <class = on_use>
[[nodiscard]] result<lora_file> read_lora_file(const std::filesystem::path& path, const lora_file_options& opt = {}) {
    using part = detail::lora_name::part;
    const auto file = checkpoint::open(path);
    if (!file) {
        return file.error();
    }
    lora_file out;
    out.metadata = file->shards().empty() ? out.metadata : file->shards().front().file.metadata();
    std::optional<lora_format> format;
    std::map<std::string, detail::lora_parts> all;
    for (const checkpoint::place& p : file->tensors()) {
        const std::string& tensor = p.info->name;
        const auto name = detail::parse_lora_name(tensor);
        if (const auto unsupported_part = detail::find_unsupported_part(tensor); unsupported_part.why != nullptr) {
            auto& parts = all[tensor.substr(0, unsupported_part.module_end)];
            parts.all.push_back(&p);
            parts.unsupported_part = unsupported_part.why;
            continue;
        }
        if (name.what == part::none) {
            out.unmapped.push_back(tensor + ": not a part of an adapter that is known");
            continue;
        }
        if (name.what != part::alpha && name.what != part::magnitude) {
            if (format && *format != name.format) {
                return detail::in_file(
                    path, {errc::invalid_format, "tensor " + detail::in_quotes(tensor) + " is named as in " +
                                                     to_string(name.format) + ", others as in " + to_string(*format)});
            }
            format = name.format;
        }
        auto& parts = all[name.module];
        parts.all.push_back(&p);
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
    if (!format) {
        for (const auto& entry : all) {
            if (entry.second.unsupported_part != nullptr) {
                return detail::in_file(path, {errc::unsupported, "module " + detail::in_quotes(entry.first) + ": " +
                                                                     entry.second.unsupported_part});
            }
        }
        return detail::in_file(path, {errc::invalid_format, "no LoRA tensors were found in any known naming"});
    }
    out.format = *format;
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
            leave_out("two kinds of adapter in one module");
            continue;
        }
        if (parts.relative) {
            auto relative = detail::join_lycoris(*parts.relative, has_alpha ? *alpha : std::nullopt);
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
        auto joined = detail::join_lora_parts(*file, parts, *format == lora_format::mlx);
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
        const bool scaled_elsewhere =
            *format == lora_format::peft || *format == lora_format::mlx || *format == lora_format::loralib;
        if (opt.scaling && scaled_elsewhere) {
            lora.lora_alpha = *opt.scaling * static_cast<double>(lora.rank());
        }
        if (opt.lora_alpha && scaled_elsewhere) {
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

/// The module of `paths` whose dots turned to underscores give a kohya name after its prefix ("lora_unet_"), if exactly
/// one does.
[[nodiscard]] inline std::optional<std::string> unflatten_kohya_name(std::string_view kohya,
                                                                     const std::vector<std::string>& paths) {
    std::optional<std::string> found;
    for (const std::string& path : paths) {
        std::string flat = path;
        std::replace(flat.begin(), flat.end(), '.', '_');
        const bool at_prefix = kohya.size() == flat.size() ||
                               (kohya.size() > flat.size() && kohya[kohya.size() - flat.size() - 1] == '_' &&
                                kohya.substr(0, kohya.size() - flat.size()).starts_with("lora_"));
        if (kohya.ends_with(flat) && at_prefix) {
            if (found && found->size() == path.size()) {
                return std::nullopt;
            }
            if (!found || path.size() > found->size()) {  // the longest: "a.to_k" rather than "to_k"
                found = path;
            }
        }
    }
    return found;
}

namespace detail {

/// The attention module and projection of "X.attn1.to_out.0", for the old diffusers names.
[[nodiscard]] inline std::optional<std::string> old_diffusers_name(std::string_view module) {
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

}  // namespace detail

/// Writes modules under the names of a format. Kohya's alpha says the scaling (rsLoRA included) exactly where r times
/// it is a float; diffusers have scaling 1, so lora_B is multiplied by it, as it is for MLX and its scale; PEFT and
/// loralib keep the scaling outside the file, so it must be alpha / r with one alpha and r there, which is not checked.
///
/// Relatives of LoRA have a place in kohya's names (LyCORIS: DoRA, convolutions, LoHa, LoKr) and, for DoRA, in MLX's.
///
/// \return `unsupported` for a module the names cannot express; as `write_safetensors`.
template <class = on_use>
status write_lora_file(const std::filesystem::path& path, const std::map<std::string, lora_adapter<float>>& modules,
                       const std::map<std::string, peft_module>& relatives, const lora_write_options& opt);

template <class = on_use>
[[nodiscard]] status write_lora_file(const std::filesystem::path& path,
                                     const std::map<std::string, lora_adapter<float>>& modules,
                                     const lora_write_options& opt = {}) {
    return write_lora_file(path, modules, {}, opt);
}

template <class>
status write_lora_file(const std::filesystem::path& path, const std::map<std::string, lora_adapter<float>>& modules,
                       const std::map<std::string, peft_module>& relatives, const lora_write_options& opt) {
    std::vector<tensor_to_write> tensors;
    std::map<std::string, std::string> metadata;
    for (const auto& [module, relative] : relatives) {
        status why = opt.format == lora_format::kohya ? detail::append_lycoris(tensors, module, relative, opt)
                     : opt.format == lora_format::mlx ? detail::append_mlx(tensors, module, relative, opt)
                                                      : detail::no_place_for(module, relative, opt.format);
        if (!why) {
            return why;
        }
        metadata = opt.format == lora_format::kohya
                       ? std::map<std::string, std::string>{{"ss_network_module", "lycoris.kohya"}}
                       : std::map<std::string, std::string>{{"format", "mlx"}};
    }
    for (const auto& [module, lora] : modules) {
        detail::expects(lora.lora_B.cols() == lora.rank(), "write_lora_file: factors must have one rank");
        const double full = lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora);
        const double scaling = opt.format == lora_format::mlx ? full / opt.mlx_scale.value_or(1) : full;
        const matrix<float> scaled =
            scaling == 1 ? lora.lora_B
                         : matrix<float>((lora.lora_B.template cast<double>() * scaling).template cast<float>());
        switch (opt.format) {
            case lora_format::peft:
                tensors.push_back(tensor_of("base_model.model." + module + ".lora_A.weight", lora.lora_A));
                tensors.push_back(tensor_of("base_model.model." + module + ".lora_B.weight", lora.lora_B));
                metadata = {{"format", "pt"}};
                break;
            case lora_format::kohya: {
                const std::string flat = detail::flat_name(module, opt);
                const bool is_off = scaling == 0;  // no alpha says so: 0 is r
                tensors.push_back(
                    detail::scalar_tensor(flat + ".alpha", (is_off ? 1 : scaling) * static_cast<double>(lora.rank())));
                tensors.push_back(tensor_of(flat + ".lora_down.weight", lora.lora_A));
                tensors.push_back(tensor_of(flat + ".lora_up.weight", is_off ? scaled : lora.lora_B));
                metadata = {{"ss_network_module", "networks.lora"}};
                break;
            }
            case lora_format::diffusers:
                tensors.push_back(tensor_of(module + ".lora.down.weight", lora.lora_A));
                tensors.push_back(tensor_of(module + ".lora.up.weight", scaled));
                metadata = {{"format", "pt"}};
                break;
            case lora_format::diffusers_old: {
                const auto name = detail::old_diffusers_name(module);
                if (!name) {
                    return {errc::unsupported,
                            "module " + detail::in_quotes(module) +
                                " is no attention projection; the old diffusers names have no place for it"};
                }
                tensors.push_back(tensor_of(*name + ".down.weight", lora.lora_A));
                tensors.push_back(tensor_of(*name + ".up.weight", scaled));
                metadata = {{"format", "pt"}};
                break;
            }
            case lora_format::mlx:
                tensors.push_back(tensor_of(module + ".lora_a", matrix<float>(lora.lora_A.transpose())));
                tensors.push_back(tensor_of(module + ".lora_b", matrix<float>(scaled.transpose())));
                metadata = {{"format", "mlx"}};
                break;
            case lora_format::loralib:
                tensors.push_back(tensor_of(module + ".lora_A", lora.lora_A));
                tensors.push_back(tensor_of(module + ".lora_B", lora.lora_B));
                break;
        }
    }
    return write_safetensors(path, std::move(tensors), metadata, opt.write);
}

/// The functions of this header that are worth compiling once, for io/instantiate.hpp.
#define LOWRANK_IO_LORA_FORMATS(way)                                                                                 \
    way template result<lora_file> read_lora_file<on_use>(const std::filesystem::path&, const lora_file_options&);   \
    way template status write_lora_file<on_use>(                                                                     \
        const std::filesystem::path&, const std::map<std::string, lora_adapter<float>>&, const lora_write_options&); \
    way template status write_lora_file<on_use>(const std::filesystem::path&,                                        \
                                                const std::map<std::string, lora_adapter<float>>&,                   \
                                                const std::map<std::string, peft_module>&, const lora_write_options&);
#ifdef LOWRANK_EXTERN_IO
LOWRANK_IO_LORA_FORMATS(extern)
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_LORA_FORMATS_HPP

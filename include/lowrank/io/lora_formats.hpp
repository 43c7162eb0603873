// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_LORA_FORMATS_HPP
#define LOWRANK_IO_LORA_FORMATS_HPP

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
#include <lowrank/io/detail/text.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/lora/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

enum class lora_format {
    peft,           ///< M.lora_A.weight, M.lora_B.weight
    kohya,          ///< M_with_underscores.lora_down.weight, .lora_up.weight, .alpha
    diffusers,      ///< M.lora.down.weight, M.lora.up.weight; scaling 1
    diffusers_old,  ///< A.processor.to_k_lora.down.weight, up; scaling 1
    mlx,            ///< M.lora_a (in x r), M.lora_b (r x out); one scale beside the file
    loralib,        ///< M.lora_A, M.lora_B; alpha is in the program that trained it
};

[[nodiscard]] inline const char* to_string(lora_format format) noexcept {
    constexpr std::array names{"peft", "kohya", "diffusers", "diffusers_old", "mlx", "loralib"};
    return names[static_cast<std::size_t>(format)];
}

/// A LoRA file as modules, with a report of what it held.
struct lora_file {
    lora_format format = lora_format::peft;
    std::map<std::string, lora_adapter<float>> modules = {};  ///< By the name the file uses, without suffix.
    std::vector<std::string> unmapped = {};                   ///< Tensors that are no part of a linear LoRA, and why.
    std::map<std::string, std::string> metadata = {};
};

struct lora_file_options {
    /// Numerator of the scaling where the file has none (PEFT, MLX, loralib): alpha / r. Without it the scaling is 1.
    std::optional<double> lora_alpha = std::nullopt;
};

namespace detail {

/// A part of a module's LoRA, as a tensor's name tells it.
struct lora_name {
    enum class part { a, b, alpha, none } what = part::none;
    lora_format format = lora_format::peft;
    std::string module = {};
};

[[nodiscard]] inline lora_name parse_lora_name(std::string_view name) {
    using part = lora_name::part;
    struct suffix {
        std::string_view text;
        part what;
        lora_format format;
    };
    constexpr suffix suffixes[] = {
        {".lora_A.weight", part::a, lora_format::peft},
        {".lora_B.weight", part::b, lora_format::peft},
        {".lora_down.weight", part::a, lora_format::kohya},
        {".lora_up.weight", part::b, lora_format::kohya},
        {".alpha", part::alpha, lora_format::kohya},
        {".lora.down.weight", part::a, lora_format::diffusers},
        {".lora.up.weight", part::b, lora_format::diffusers},
        {".lora_a", part::a, lora_format::mlx},
        {".lora_b", part::b, lora_format::mlx},
        {".lora_A", part::a, lora_format::loralib},
        {".lora_B", part::b, lora_format::loralib},
    };
    for (const std::string_view half : {std::string_view("down"), std::string_view("up")}) {
        const std::string tail = "_lora." + std::string(half) + ".weight";
        if (name.ends_with(tail)) {  // "X.attn1.processor.to_k_lora.down.weight" is about X.attn1.to_k
            std::string_view rest = name.substr(0, name.size() - tail.size());
            constexpr std::string_view processor = ".processor.";
            const std::size_t at = rest.rfind(processor);
            if (at != std::string_view::npos) {
                std::string module(rest.substr(0, at + 1));
                const std::string_view last = rest.substr(at + processor.size());
                module += last == "to_out" ? "to_out.0" : std::string(last);
                return {half == "down" ? part::a : part::b, lora_format::diffusers_old, std::move(module)};
            }
        }
    }
    for (const suffix& s : suffixes) {
        if (name.size() > s.text.size() && name.ends_with(s.text)) {
            return {s.what, s.format, std::string(name.substr(0, name.size() - s.text.size()))};
        }
    }
    return {};
}

/// The tensors of one module while they are collected.
struct lora_parts {
    const tensor_info* a = nullptr;
    const tensor_info* b = nullptr;
    const tensor_info* alpha = nullptr;
};

/// A factor as a matrix: two dimensions, or four of a 1 x 1 convolution, which is linear.
[[nodiscard]] inline result<matrix<float>> factor_of(const safetensors_file& file, const tensor_info& t) {
    tensor_info flat = t;
    if (flat.shape.size() == 4 && flat.shape[2] == 1 && flat.shape[3] == 1) {
        flat.shape.resize(2);
    }
    if (flat.shape.size() != 2) {
        return status{errc::unsupported, "has shape " + shape_in_words(t.shape) + "; it is no linear layer"};
    }
    auto m = matrix_from<float>(flat, file.bytes(t));
    if (!m) {
        return m.error();
    }
    if (!all_finite(*m)) {
        return status{errc::non_finite, "tensor " + in_quotes(t.name) + " holds NaN or infinity"};
    }
    return matrix<float>(*m);
}

}  // namespace detail

/// Reads a LoRA file of any of the formats. What is no linear LoRA (convolutions, LoHa, LoKr, DoRA magnitudes, norms)
/// is listed in `unmapped` with the reason.
///
/// \return `not_found`; `invalid_format` for a broken file, names of two formats in one file, a factor without its
///         partner, a file without LoRA; `mismatch` for factors of different rank; `non_finite`.
[[nodiscard]] inline result<lora_file> read_lora_file(const std::filesystem::path& path,
                                                      const lora_file_options& opt = {}) {
    using part = detail::lora_name::part;
    const auto file = safetensors_file::open(path);
    if (!file) {
        return file.error();
    }
    lora_file out;
    out.metadata = file->metadata();
    std::optional<lora_format> format;
    std::map<std::string, detail::lora_parts> all;
    for (const tensor_info& t : file->tensors()) {
        const auto name = detail::parse_lora_name(t.name);
        if (name.what == part::none) {
            out.unmapped.push_back(t.name + ": not a part of a linear LoRA");
            continue;
        }
        if (name.what != part::alpha) {
            if (format && *format != name.format) {
                return detail::in_file(
                    path, {errc::invalid_format, "tensor " + detail::in_quotes(t.name) + " is named as in " +
                                                     to_string(name.format) + ", others as in " + to_string(*format)});
            }
            format = name.format;
        }
        auto& parts = all[name.module];
        (name.what == part::a ? parts.a : name.what == part::b ? parts.b : parts.alpha) = &t;
    }
    if (!format) {
        return detail::in_file(path, {errc::invalid_format, "no LoRA tensors were found in any known naming"});
    }
    out.format = *format;
    for (const auto& [module, parts] : all) {
        if (parts.a == nullptr && parts.b == nullptr) {
            out.unmapped.push_back(parts.alpha->name + ": alpha of a module that is no linear LoRA");
            continue;
        }
        if (parts.a == nullptr || parts.b == nullptr) {
            return detail::in_file(
                path,
                {errc::invalid_format,
                 "tensor " + detail::in_quotes((parts.a != nullptr ? parts.a : parts.b)->name) + " has no partner"});
        }
        auto a = detail::factor_of(*file, *parts.a);
        auto b = detail::factor_of(*file, *parts.b);
        if (!a || !b) {
            const status& why = a ? b.error() : a.error();
            if (why.code == errc::unsupported) {
                out.unmapped.push_back(parts.a->name + ": " + why.message);
                out.unmapped.push_back(parts.b->name + ": " + why.message);
                continue;
            }
            return detail::in_file(path, why);
        }
        lora_adapter<float> lora;
        const bool transposed = *format == lora_format::mlx;
        lora.lora_A = transposed ? matrix<float>(a->transpose()) : std::move(*a);
        lora.lora_B = transposed ? matrix<float>(b->transpose()) : std::move(*b);
        if (lora.lora_A.rows() != lora.lora_B.cols()) {
            return detail::in_file(path,
                                   {errc::mismatch, "module " + detail::in_quotes(module) + " has factors of rank " +
                                                        std::to_string(lora.lora_A.rows()) + " and " +
                                                        std::to_string(lora.lora_B.cols())});
        }
        lora.lora_alpha = static_cast<double>(lora.rank());
        const bool scaled_elsewhere =
            *format == lora_format::peft || *format == lora_format::mlx || *format == lora_format::loralib;
        if (opt.lora_alpha && scaled_elsewhere) {
            lora.lora_alpha = *opt.lora_alpha;
        }
        if (parts.alpha != nullptr) {
            const auto alpha = file->vector<double>(parts.alpha->name);
            if (!alpha || alpha->size() != 1 || !is_finite((*alpha)(0))) {
                return detail::in_file(path, {errc::invalid_format, "tensor " + detail::in_quotes(parts.alpha->name) +
                                                                        " must be one finite number"});
            }
            if ((*alpha)(0) != 0) {  // as kohya: 0 means r
                lora.lora_alpha = (*alpha)(0);
            }
        }
        out.modules.emplace(module, std::move(lora));
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

struct lora_write_options {
    lora_format format = lora_format::kohya;
    std::string kohya_prefix = "lora_unet_";  ///< Put before names that have no such prefix yet.
    write_options write = {};
};

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
/// \return `unsupported` for a module the old diffusers names cannot express; as `write_safetensors`.
[[nodiscard]] inline status write_lora_file(const std::filesystem::path& path,
                                            const std::map<std::string, lora_adapter<float>>& modules,
                                            const lora_write_options& opt = {}) {
    std::vector<tensor_to_write> tensors;
    std::map<std::string, std::string> metadata;
    for (const auto& [module, lora] : modules) {
        detail::expects(lora.lora_B.cols() == lora.rank(), "write_lora_file: factors must have one rank");
        const double scaling = lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora);
        const matrix<float> scaled =
            scaling == 1 ? lora.lora_B : matrix<float>((lora.lora_B.cast<double>() * scaling).cast<float>());
        switch (opt.format) {
            case lora_format::peft:
                tensors.push_back(tensor_of("base_model.model." + module + ".lora_A.weight", lora.lora_A));
                tensors.push_back(tensor_of("base_model.model." + module + ".lora_B.weight", lora.lora_B));
                metadata = {{"format", "pt"}};
                break;
            case lora_format::kohya: {
                std::string flat = module;
                std::replace(flat.begin(), flat.end(), '.', '_');
                flat = flat.starts_with("lora_") ? flat : opt.kohya_prefix + flat;
                const row_matrix<float> alpha =
                    row_matrix<float>::Constant(1, 1, static_cast<float>(scaling * static_cast<double>(lora.rank())));
                tensors.push_back(tensor_of(flat + ".alpha", alpha));
                tensors.back().shape.clear();
                tensors.push_back(tensor_of(flat + ".lora_down.weight", lora.lora_A));
                tensors.push_back(tensor_of(flat + ".lora_up.weight", lora.lora_B));
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

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_LORA_FORMATS_HPP

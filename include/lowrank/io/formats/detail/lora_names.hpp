// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DETAIL_LORA_NAMES_HPP
#define LOWRANK_IO_FORMATS_DETAIL_LORA_NAMES_HPP

/// \file
/// What the names of tensors in LoRA files of other tools mean.
///
///     detail::parse_lora_name("lora_unet_x.lora_up.weight")   // {b, kohya, "lora_unet_x"}
///
/// Names as in kohya-ss/sd-scripts, LyCORIS, huggingface/diffusers, ml-explore/mlx-lm and microsoft/LoRA.

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>

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

namespace detail {

/// A part of a module's LoRA, as a tensor's name tells it.
struct lora_name {
    enum class part { a, b, alpha, magnitude, relative, none } what = part::none;
    lora_format format = lora_format::peft;
    std::string module = {};
    std::string_view leaf = {};  ///< Of a relative: LyCORIS's "hada_w1_a", "lokr_w1", ...
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
        {".dora_scale", part::magnitude, lora_format::kohya},
        {".lora_magnitude_vector", part::magnitude, lora_format::peft},
        {".m", part::magnitude, lora_format::mlx},
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
                return {half == "down" ? part::a : part::b, lora_format::diffusers_old, std::move(module), {}};
            }
        }
    }
    constexpr std::string_view leaves[] = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b",  "hada_t1",
                                           "hada_t2",   "lokr_w1",   "lokr_w1_a", "lokr_w1_b",  "lokr_w2",
                                           "lokr_w2_a", "lokr_w2_b", "lokr_t2",   "oft_blocks", "rescale"};
    for (const std::string_view leaf : leaves) {
        if (name.size() > leaf.size() + 1 && name.ends_with(leaf) && name[name.size() - leaf.size() - 1] == '.') {
            return {part::relative, lora_format::kohya, std::string(name.substr(0, name.size() - leaf.size() - 1)),
                    leaf};
        }
    }
    for (const suffix& s : suffixes) {
        if (name.size() > s.text.size() && name.ends_with(s.text)) {
            return {s.what, s.format, std::string(name.substr(0, name.size() - s.text.size())), {}};
        }
    }
    return {};
}

/// A tensor that makes its module another one than the rest of it says: where its module's name ends, and why the
/// module cannot be read.
struct foreign_part {
    std::size_t module_end = 0;
    const char* why = nullptr;  ///< Null: it is no such tensor.
};

[[nodiscard]] inline foreign_part find_unsupported_part(std::string_view name) {
    struct known {
        std::string_view tail;
        const char* why;
    };
    constexpr known all[] = {
        {".oft_diag",
         "OFT under the name of LyCORIS's first releases, which turn the outputs of a layer, is not supported"},
        {".scalar", "the module is multiplied by a scalar beside its factors, which is not supported"},
        {".diff", "a full difference of the weight, not one of low rank; add it to the weight"},
        {".glora_a1", "GLoRA is not supported"},
        {".on_input", "the (IA)^3 of LyCORIS is not supported"},
    };
    for (const known& k : all) {
        const bool whole = name.ends_with(k.tail);
        const std::size_t end = name.size() - (whole ? k.tail.size() : 0);
        if (whole && end != 0) {
            return {end, k.why};
        }
    }
    return {};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DETAIL_LORA_NAMES_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_QUANTIZED_WEIGHT_IPP
#define LOWRANK_IO_QUANTIZED_QUANTIZED_WEIGHT_IPP

#include <lowrank/io/quantized/quantized_weight.hpp>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include <lowrank/io/containers/detail/config_reader.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/models/detail/config_beside.hpp>
#include <lowrank/io/quantized/detail/coded_blocks.hpp>
#include <lowrank/io/quantized/detail/packed_integers.hpp>
#include <lowrank/io/quantized/detail/parts.hpp>
#include <lowrank/io/quantized/detail/scaled_codes.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Methods whose tensors the schemes know.
inline constexpr std::array<std::string_view, 8> known_methods{"fp8",  "fbgemm_fp8", "compressed-tensors", "modelopt",
                                                               "gptq", "awq",        "bitsandbytes",       "mxfp4"};
/// Formats of compressed-tensors that leave elements out.
inline constexpr std::array<std::string_view, 3> sparse_formats{"sparse-24-bitmask", "sparse-bitmask", "marlin-24"};

LOWRANK_INLINE void read_quantization(quantization_config& out, config_reader& in) {
    in.text("quant_method", out.method);
    in.text("format", out.format);
    in.text("checkpoint_format", out.format);
    if (out.method == "awq") {
        in.text("version", out.format);
        std::transform(out.format.begin(), out.format.end(), out.format.begin(),
                       [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    }
    std::int64_t bits = 0;
    in.count("bits", bits);
    if (const json* groups = in.find("config_groups"); groups != nullptr && groups->is_object()) {
        for (const json& group : *groups) {
            const auto weights = group.is_object() ? group.find("weights") : group.end();
            if (group.is_object() && weights != group.end() && weights->is_object()) {
                config_reader of_weights(*weights);
                of_weights.count("num_bits", bits);
                in.why = in.why ? of_weights.why : in.why;
            }
        }
    }
    out.bits = static_cast<int>(std::min<std::int64_t>(bits, 64));
    if (const json* block = in.find("weight_block_size"); block != nullptr && block->is_array()) {
        for (const json& n : *block) {
            index extent = 0;
            in.rank("weight_block_size", n, extent);
            out.block_shape.push_back(extent);
        }
    }
}

/// Names that only codes or their parts have.
[[nodiscard]] inline bool looks_like_codes(const tensor_info& t) noexcept {
    const std::string_view name = t.name;
    const bool is_weight = name.ends_with(".weight") && t.shape.size() >= 2;
    return name.ends_with(".qweight") || name.ends_with(".weight_packed") || (is_weight && !is_real(t.type)) ||
           bits_of(t.type) < 8;
}

}  // namespace detail

LOWRANK_BODY result<quantization_config> read_quantization_config(const checkpoint& base) {
    quantization_config out;
    const auto objects = detail::config_beside(base);
    if (!objects) {
        return objects.error();
    }
    for (const detail::json& from : *objects) {
        for (const char* key : {"torch_dtype", "dtype"}) {
            const auto at = from.find(key);
            if (at != from.end() && at->is_string() && !out.float_type) {
                const auto text = at->get<std::string>();
                out.float_type = text == "float16"    ? std::optional(dtype::f16)
                                 : text == "bfloat16" ? std::optional(dtype::bf16)
                                 : text == "float32"  ? std::optional(dtype::f32)
                                                      : std::nullopt;
            }
        }
        for (const char* key : {"quantization_config", "compression_config"}) {
            const auto at = from.find(key);
            if (at == from.end() || !at->is_object() || !out.method.empty()) {
                continue;
            }
            detail::config_reader in(*at);
            detail::read_quantization(out, in);
            if (!in.why) {
                return detail::in_context(key, in.why);
            }
        }
    }
    return out;
}

LOWRANK_BODY std::span<const quantization_scheme> quantization_schemes() {
    static constexpr std::array<quantization_scheme, 8> all{{
        {"bitsandbytes 4-bit", detail::recognize_bitsandbytes},
        {"bitsandbytes 8-bit", detail::recognize_int8_rows},
        {"GPTQ", detail::recognize_gptq},
        {"AWQ", detail::recognize_awq},
        {"compressed-tensors integers", detail::recognize_packed},
        {"NVFP4 and MXFP4", detail::recognize_float4},
        {"MXFP4 of experts", detail::recognize_expert_blocks},
        {"FP8 and int8 with scales", detail::recognize_scaled_codes},
    }};
    return all;
}

LOWRANK_BODY result<std::vector<quantized_weight>> quantized_weights(const checkpoint& base,
                                                                     std::span<const quantization_scheme> schemes) {
    const auto config = read_quantization_config(base);
    if (!config) {
        return config.error();
    }
    if (std::find(detail::sparse_formats.begin(), detail::sparse_formats.end(), config->format) !=
        detail::sparse_formats.end()) {
        return status{errc::unsupported, "the checkpoint is compressed as " + detail::in_quotes(config->format) +
                                             ", which leaves elements out; no scheme decodes it"};
    }
    std::vector<quantized_weight> out;
    std::set<std::string_view> taken;
    for (const checkpoint::place& p : base.tensors()) {
        for (const quantization_scheme& scheme : schemes) {
            auto found = scheme.recognize(base, *config, *p.info);
            if (!found) {
                return detail::in_context(std::string(scheme.name), found.error());
            }
            if (*found) {
                out.push_back(std::move(**found));
                break;
            }
        }
    }
    std::set<std::string_view> decoded;
    for (const quantized_weight& w : out) {
        if (!decoded.insert(w.name).second) {
            return status{errc::mismatch, "the checkpoint holds codes of " + detail::in_quotes(w.name) + " twice"};
        }
        taken.insert(w.parts.begin(), w.parts.end());
        if (const tensor_info* twin = base.find(w.name); twin != nullptr && twin->name != w.parts.front()) {
            return status{errc::mismatch, "the checkpoint holds tensor " + detail::in_quotes(w.name) +
                                              " and its codes " + detail::in_quotes(w.parts.front())};
        }
    }
    const bool is_known = config->method.empty() ||
                          std::find(detail::known_methods.begin(), detail::known_methods.end(), config->method) !=
                              detail::known_methods.end();
    if (out.empty() && !is_known) {
        return status{errc::unsupported, "config.json says that the weights are quantized by " +
                                             detail::in_quotes(config->method) + ", which no scheme decodes"};
    }
    for (const checkpoint::place& p : base.tensors()) {
        if (!taken.contains(p.info->name) && detail::looks_like_codes(*p.info)) {
            return status{
                errc::unsupported,
                "tensor " + detail::in_quotes(p.info->name) + " holds codes of type " +
                    std::string(name_of(p.info->type)) + " that no scheme decodes" +
                    (config->method.empty() ? "" : " (quantized by " + detail::in_quotes(config->method) + ")")};
        }
    }
    return out;
}

LOWRANK_BODY std::optional<quantized_weight> encodable_weight(const checkpoint& base, const tensor_info& codes) {
    const auto config = read_quantization_config(base);
    auto found =
        config ? detail::recognize_scaled_codes(base, *config, codes) : detail::recognized_weight(config.error());
    return found && *found && (**found).encode ? std::move(*found) : std::nullopt;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_QUANTIZED_QUANTIZED_WEIGHT_IPP

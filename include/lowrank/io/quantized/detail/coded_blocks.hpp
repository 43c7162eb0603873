// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_DETAIL_CODED_BLOCKS_HPP
#define LOWRANK_IO_QUANTIZED_DETAIL_CODED_BLOCKS_HPP

/// \file
/// Weights in nibbles that stand for floats, with a scale per block: NVFP4, MXFP4, bitsandbytes' NF4 and FP4.
///
///     auto w = detail::recognize_float4(base, config, *base.find("up_proj.weight_packed"));

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/io/containers/detail/config_reader.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/quantized/detail/parts.hpp>
#include <lowrank/quant/formats/small_floats.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The nibble of element k where the low one of a byte comes first.
[[nodiscard]] inline std::size_t low_first(const std::byte* codes, index k) noexcept {
    const auto byte = static_cast<unsigned>(codes[k / 2]);
    return k % 2 == 0 ? byte & 15U : byte >> 4U;
}

/// NVFP4 and MXFP4 of a matrix: a row is cols / 2 bytes, and cols / block scales.
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_float4(const checkpoint& base, const quantization_config&,
                                                                const tensor_info& t) {
    std::string module(without_end(t.name, ".weight_packed"));
    if (module.empty() && base.find(t.name + "_scale_2") != nullptr) {
        module = without_end(t.name, ".weight");
    }
    if (module.empty() || t.type != dtype::u8) {
        return std::optional<quantized_weight>();
    }
    const tensor_info* scale = base.find(module + ".weight_scale");
    if (scale == nullptr) {
        return missing_part(t, module + ".weight_scale");
    }
    const bool is_nvfp4 = scale->type == dtype::f8_e4m3;
    if (!is_nvfp4 && scale->type != dtype::u8 && scale->type != dtype::f8_e8m0) {
        return wrong_part(*scale, "scales of type F8_E4M3 (NVFP4), or F8_E8M0 or U8 (MXFP4)");
    }
    if (t.shape.size() < 2 || t.begin == t.end) {
        return wrong_part(t, "a matrix of bytes");
    }
    quantized_weight w{.name = module + ".weight",
                       .scheme = is_nvfp4 ? "NVFP4" : "MXFP4",
                       .shape = t.shape,
                       .parts = {t.name, scale->name}};
    w.shape.back() *= 2;
    const index block = is_nvfp4 ? 16 : 32;
    const index cols = w.cols();
    if (cols % block != 0 || static_cast<index>(elements_of(*scale)) != w.rows() * (cols / block)) {
        return wrong_part(*scale, "one scale for " + std::to_string(block) + " columns of " + shape_in_words(w.shape));
    }
    auto scales = numbers_of(base, *scale, true);
    if (!scales) {
        return scales.error();
    }
    const tensor_info* divisor = base.find(module + ".weight_global_scale");
    const tensor_info* factor = base.find(module + ".weight_scale_2");
    if (const tensor_info* second = divisor != nullptr ? divisor : factor) {
        const auto value = numbers_of(base, *second);
        if (!value || value->empty() || (value->size() != 1 && w.shape.size() == 2) ||
            w.rows() % static_cast<index>(value->size()) != 0) {
            return wrong_part(*second, "one number");
        }
        const std::size_t share = scales->size() / value->size();
        for (std::size_t i = 0; i < scales->size(); ++i) {
            const float by = (*value)[i / share];
            (*scales)[i] = divisor != nullptr ? (*scales)[i] / by : (*scales)[i] * by;
        }
        w.parts.push_back(second->name);
    } else if (is_nvfp4) {
        return missing_part(t, module + ".weight_global_scale");
    }
    add_activation_parts(base, module, w);
    w.decode = [base, codes = base.bytes(*base.locate(t.name)).data(), scales = std::move(*scales), cols, block](
                   index first, index count, float* out) {
        for (index k = first * cols; k < (first + count) * cols; ++k) {
            *out++ = float4_values[low_first(codes, k)] * scales[static_cast<std::size_t>(k / block)];
        }
    };
    return std::optional(std::move(w));
}

/// MXFP4 of gpt-oss: `X_blocks` [E, out, in / 32, 16] and `X_scales` [E, out, in / 32] are the parameter X [E, in, out].
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_expert_blocks(const checkpoint& base,
                                                                       const quantization_config&,
                                                                       const tensor_info& t) {
    const std::string name(without_end(t.name, "_blocks"));
    if (name.empty() || t.type != dtype::u8) {
        return std::optional<quantized_weight>();
    }
    const tensor_info* scale = base.find(name + "_scales");
    if (scale == nullptr) {
        return missing_part(t, name + "_scales");
    }
    if (t.shape.size() != 4 || t.shape[3] != 16 || t.begin == t.end) {
        return wrong_part(t, "[experts, out, in / 32, 16]");
    }
    const std::vector<std::uint64_t> expected(t.shape.begin(), t.shape.end() - 1);
    if (scale->shape != expected) {
        return wrong_part(*scale, "shape " + shape_in_words(expected));
    }
    auto scales = numbers_of(base, *scale, true);
    if (!scales) {
        return scales.error();
    }
    const auto out = static_cast<index>(t.shape[1]);
    const auto in = static_cast<index>(t.shape[2]) * 32;
    quantized_weight w{.name = name,
                       .scheme = "MXFP4",
                       .shape = {t.shape[0], static_cast<std::uint64_t>(in), t.shape[1]},
                       .parts = {t.name, scale->name}};
    w.decode = [base, codes = base.bytes(*base.locate(t.name)).data(), scales = std::move(*scales), in, out](
                   index first, index count, float* to) {
        for (index row = first; row < first + count; ++row) {
            for (index o = 0; o < out; ++o) {
                const index k = (row / in * out + o) * in + row % in;
                *to++ = float4_values[low_first(codes, k)] * scales[static_cast<std::size_t>(k / 32)];
            }
        }
    };
    return std::optional(std::move(w));
}

/// What `quant_state.bitsandbytes__nf4` (or fp4) says.
struct bitsandbytes_state {
    std::string type = {};
    index block = 64;
    index nested_block = 256;
    double nested_offset = 0;
    std::vector<std::uint64_t> shape = {};
};
LOWRANK_INLINE [[nodiscard]] result<bitsandbytes_state> read_bitsandbytes_state(const checkpoint& base,
                                                                                const tensor_info& t) {
    const auto document = read_json(base.bytes(*base.locate(t.name)));
    if (!document) {
        return in_context("tensor " + in_quotes(t.name), document.error());
    }
    if (!document->is_object()) {
        return status{errc::invalid_format, "tensor " + in_quotes(t.name) + " is no JSON object"};
    }
    bitsandbytes_state out;
    config_reader in(*document);
    in.text("quant_type", out.type);
    in.rank("blocksize", out.block);
    in.rank("nested_blocksize", out.nested_block);
    in.number("nested_offset", out.nested_offset);
    if (const json* shape = in.find("shape"); shape != nullptr && shape->is_array()) {
        for (const json& n : *shape) {
            index extent = 0;
            in.rank("shape", n, extent);
            out.shape.push_back(static_cast<std::uint64_t>(extent));
        }
    }
    if (!in.why) {
        return in_context("tensor " + in_quotes(t.name), in.why);
    }
    return out;
}

/// The scales of the blocks: floats, or codes of one byte with scales of their own.
LOWRANK_INLINE [[nodiscard]] result<std::vector<float>> bitsandbytes_scales(const checkpoint& base,
                                                                            const std::string& weight,
                                                                            const bitsandbytes_state& state,
                                                                            quantized_weight& w) {
    const tensor_info& absmax = *base.find(weight + ".absmax");
    auto codes = numbers_of(base, absmax);
    if (!codes || absmax.type != dtype::u8) {
        return codes;
    }
    const tensor_info* nested = base.find(weight + ".nested_absmax");
    const tensor_info* map = base.find(weight + ".nested_quant_map");
    if (nested == nullptr || map == nullptr) {
        return missing_part(absmax, weight + (nested == nullptr ? ".nested_absmax" : ".nested_quant_map"));
    }
    const auto scales = numbers_of(base, *nested);
    const auto values = numbers_of(base, *map);
    if (!values || values->size() != 256) {
        return wrong_part(*map, "the 256 numbers of the codes");
    }
    const auto block = static_cast<std::size_t>(state.nested_block);
    if (!scales || scales->size() != (codes->size() + block - 1) / block) {
        return wrong_part(*nested, "one scale for " + std::to_string(block) + " scales");
    }
    w.parts.push_back(nested->name);
    w.parts.push_back(map->name);
    const auto offset = static_cast<float>(state.nested_offset);
    for (std::size_t b = 0; b < codes->size(); ++b) {
        const float scaled = (*values)[static_cast<std::size_t>((*codes)[b])] * (*scales)[b / block];
        (*codes)[b] = scaled + offset;
    }
    return codes;
}

/// bitsandbytes' 4 bits: nibbles of the row-major elements, the high one first, in blocks of `blocksize`.
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_bitsandbytes(const checkpoint& base,
                                                                      const quantization_config&,
                                                                      const tensor_info& t) {
    const tensor_info* absmax = base.find(t.name + ".absmax");
    if (absmax == nullptr) {
        return std::optional<quantized_weight>();
    }
    const tensor_info* stated = nullptr;
    for (const char* type : {"nf4", "fp4"}) {
        if (const tensor_info* s = base.find(t.name + ".quant_state.bitsandbytes__" + type)) {
            stated = s;
        }
    }
    const tensor_info* map = base.find(t.name + ".quant_map");
    if (stated == nullptr || map == nullptr) {
        return missing_part(t, t.name + (stated == nullptr ? ".quant_state.bitsandbytes__nf4" : ".quant_map"));
    }
    const auto state = read_bitsandbytes_state(base, *stated);
    if (!state) {
        return state.error();
    }
    const auto values = numbers_of(base, *map);
    if (!values || values->size() != 16) {
        return wrong_part(*map, "the 16 numbers of the codes");
    }
    quantized_weight w{.name = t.name,
                       .scheme = "bitsandbytes 4-bit",
                       .shape = state->shape,
                       .parts = {t.name, absmax->name, map->name, stated->name}};
    if (w.shape.empty() || t.type != dtype::u8) {
        return wrong_part(t, "bytes, with the shape in " + in_quotes(stated->name));
    }
    std::uint64_t bytes = 0;
    if (const auto size = tensor_bytes(t.name, dtype::u8, w.shape);
        !size || (bytes = *size) == 0 || (bytes + 1) / 2 != t.end - t.begin) {
        return wrong_part(t, "two codes in a byte of " + shape_in_words(w.shape));
    }
    auto scales = bitsandbytes_scales(base, t.name, *state, w);
    if (!scales) {
        return scales.error();
    }
    const auto block = static_cast<std::uint64_t>(state->block);
    if (scales->size() != (bytes + block - 1) / block) {
        return wrong_part(*absmax,
                          "one scale for " + std::to_string(block) + " elements of " + shape_in_words(w.shape));
    }
    w.decode = [base, codes = base.bytes(*base.locate(t.name)).data(), values = *values, scales = std::move(*scales),
                cols = w.cols(), block = state->block](index first, index count, float* out) {
        for (index k = first * cols; k < (first + count) * cols; ++k) {
            const auto byte = static_cast<unsigned>(codes[k / 2]);
            *out++ = values[k % 2 == 0 ? byte >> 4U : byte & 15U] * scales[static_cast<std::size_t>(k / block)];
        }
    };
    return std::optional(std::move(w));
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_QUANTIZED_DETAIL_CODED_BLOCKS_HPP

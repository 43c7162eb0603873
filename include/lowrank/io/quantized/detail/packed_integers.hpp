// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_DETAIL_PACKED_INTEGERS_HPP
#define LOWRANK_IO_QUANTIZED_DETAIL_PACKED_INTEGERS_HPP

/// \file
/// Weights whose codes are integers of a few bits in words of 32: GPTQ, AWQ, compressed-tensors.
///
///     auto w = detail::recognize_gptq(base, config, *base.find("up_proj.qweight"));

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/io/quantized/detail/parts.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The group of each column. `g_idx`, where there is one, says it; else columns of a group follow each other.
LOWRANK_INLINE [[nodiscard]] result<std::vector<index>> groups_of_columns(const checkpoint& base,
                                                                          const tensor_info* g_idx, index cols,
                                                                          index groups) {
    std::vector<index> out(static_cast<std::size_t>(cols));
    const index size = groups == 0 ? 0 : (cols + groups - 1) / groups;
    for (index c = 0; c < cols; ++c) {
        out[static_cast<std::size_t>(c)] = size == 0 ? 0 : c / size;
    }
    if (g_idx == nullptr) {
        return out;
    }
    const auto said = numbers_of(base, *g_idx);
    if (!said || static_cast<index>(said->size()) != cols) {
        return wrong_part(*g_idx, "one number per column, " + std::to_string(cols));
    }
    if (std::all_of(said->begin(), said->end(), [](float g) { return g == -1; })) {
        return out;  // left as it was made: no order of its own
    }
    for (std::size_t c = 0; c < said->size(); ++c) {
        const float g = (*said)[c];
        if (!(g >= 0) || g >= static_cast<float>(groups)) {
            return status{errc::mismatch, "tensor " + in_quotes(g_idx->name) + " gives column " + std::to_string(c) +
                                              " a group that is not among the " + std::to_string(groups)};
        }
        out[c] = static_cast<index>(g);
    }
    return out;
}

/// What GPTQ and AWQ share: codes [in, out] of some kind, scales [groups, out].
struct column_groups {
    std::string module;
    const tensor_info* zeros = nullptr;
    const tensor_info* scales = nullptr;
};
LOWRANK_INLINE [[nodiscard]] result<column_groups> column_groups_of(const checkpoint& base, const tensor_info& codes) {
    column_groups out{std::string(without_end(codes.name, ".qweight"))};
    for (const auto& [end, to] : {std::pair{".qzeros", &out.zeros}, std::pair{".scales", &out.scales}}) {
        *to = base.find(out.module + end);
        if (*to == nullptr) {
            return missing_part(codes, out.module + end);
        }
    }
    const auto is_matrix = [](const tensor_info& t) { return t.shape.size() == 2 && t.begin != t.end; };
    if (!is_matrix(codes) || codes.type != dtype::i32) {
        return wrong_part(codes, "a matrix of I32 words");
    }
    if (!is_matrix(*out.zeros) || out.zeros->type != dtype::i32) {
        return wrong_part(*out.zeros, "a matrix of I32 words");
    }
    if (!is_matrix(*out.scales) || !is_real(out.scales->type) || out.scales->shape[0] != out.zeros->shape[0]) {
        return wrong_part(*out.scales, "a matrix of floats with as many rows as " + in_quotes(out.zeros->name));
    }
    return out;
}

/// GPTQ: qweight [in bits / 32, out], qzeros [groups, out bits / 32], scales [groups, out].
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_gptq(const checkpoint& base, const quantization_config& config,
                                                              const tensor_info& t) {
    const tensor_info* beside = base.find(std::string(without_end(t.name, ".qweight")) + ".scales");
    if (!t.name.ends_with(".qweight") ||
        (beside != nullptr && t.shape.size() == 2 && beside->shape.size() == 2 && t.shape[1] != beside->shape[1])) {
        return std::optional<quantized_weight>();  // AWQ packs along the other dimension
    }
    const auto parts = column_groups_of(base, t);
    if (!parts) {
        return parts.error();
    }
    if (config.method == "gptq" && !config.format.empty() && config.format != "gptq" && config.format != "gptq_v2") {
        return status{errc::unsupported, "the checkpoint has GPTQ weights in the format " + in_quotes(config.format) +
                                             ", which is arranged for one kernel; only \"gptq\" and \"gptq_v2\" can be "
                                             "decoded"};
    }
    const auto out = static_cast<index>(t.shape[1]);
    const auto groups = static_cast<index>(parts->scales->shape[0]);
    const auto zero_words = static_cast<index>(parts->zeros->shape[1]);
    const index bits = zero_words * 32 / out;
    if (zero_words * 32 % out != 0 || (bits != 2 && bits != 3 && bits != 4 && bits != 8)) {
        return wrong_part(*parts->zeros, "codes of 2, 3, 4 or 8 bits for " + std::to_string(out) + " rows");
    }
    const index in = static_cast<index>(t.shape[0]) * 32 / bits;
    const tensor_info* g_idx = base.find(parts->module + ".g_idx");
    auto group = groups_of_columns(base, g_idx, in, groups);
    if (!group) {
        return group.error();
    }
    auto scales = numbers_of(base, *parts->scales);
    if (!scales) {
        return scales.error();
    }
    quantized_weight w{.name = parts->module + ".weight",
                       .scheme = "GPTQ, " + std::to_string(bits) + " bits",
                       .shape = {static_cast<std::uint64_t>(out), static_cast<std::uint64_t>(in)},
                       .parts = {t.name, parts->zeros->name, parts->scales->name}};
    if (g_idx != nullptr) {
        w.parts.push_back(g_idx->name);
    }
    // The first format stores zeros less one.
    const float one = config.format == "gptq_v2" ? 0.0F : 1.0F;
    w.decode = [base, codes = base.bytes(*base.locate(t.name)).data(),
                zero_codes = base.bytes(*base.locate(parts->zeros->name)).data(), scales = std::move(*scales),
                group = std::move(*group), one, in, out, zero_words,
                bits = static_cast<int>(bits)](index first, index count, float* to) {
        for (index o = first; o < first + count; ++o) {
            const bit_stream column{codes + o * 4, bits};
            for (index i = 0; i < in; ++i) {
                const index g = group[static_cast<std::size_t>(i)];
                const bit_stream zeros{zero_codes + g * zero_words * 4, bits};
                const float zero = static_cast<float>(zeros.at(o, 1)) + one;
                *to++ = scales[static_cast<std::size_t>(g * out + o)] * (static_cast<float>(column.at(i, out)) - zero);
            }
        }
    };
    return std::optional(std::move(w));
}

/// AWQ ("gemm"): qweight [in, out / 8], qzeros [groups, out / 8], scales [groups, out]; column c of eight lies in nibble
/// 0, 4, 1, 5, 2, 6, 3, 7.
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_awq(const checkpoint& base, const quantization_config& config,
                                                             const tensor_info& t) {
    if (!t.name.ends_with(".qweight")) {
        return std::optional<quantized_weight>();
    }
    const auto parts = column_groups_of(base, t);
    if (!parts) {
        return parts.error();
    }
    if (config.method == "awq" && !config.format.empty() && config.format != "gemm") {
        return status{errc::unsupported, "the checkpoint has AWQ weights of version " + in_quotes(config.format) +
                                             "; only \"gemm\" can be decoded"};
    }
    const auto words = static_cast<index>(t.shape[1]);
    const auto in = static_cast<index>(t.shape[0]);
    const index out = words * 8;
    const auto groups = static_cast<index>(parts->scales->shape[0]);
    if (static_cast<index>(parts->scales->shape[1]) != out || parts->zeros->shape[1] != t.shape[1] ||
        in % groups != 0) {
        return wrong_part(t, "eight codes of 4 bits in a word, as " + in_quotes(parts->scales->name) + " and " +
                                 in_quotes(parts->zeros->name) + " have");
    }
    auto scales = numbers_of(base, *parts->scales);
    if (!scales) {
        return scales.error();
    }
    quantized_weight w{.name = parts->module + ".weight",
                       .scheme = "AWQ, 4 bits",
                       .shape = {static_cast<std::uint64_t>(out), static_cast<std::uint64_t>(in)},
                       .parts = {t.name, parts->zeros->name, parts->scales->name}};
    w.decode = [base, codes = base.bytes(*base.locate(t.name)).data(),
                zeros = base.bytes(*base.locate(parts->zeros->name)).data(), scales = std::move(*scales), in, out,
                words, size = in / groups](index first, index count, float* to) {
        constexpr index nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
        for (index o = first; o < first + count; ++o) {
            const index at = nibble[o % 8];
            for (index i = 0; i < in; ++i) {
                const index g = i / size;
                const bit_stream row{codes + (i * words + o / 8) * 4, 4};
                const bit_stream of_zeros{zeros + (g * words + o / 8) * 4, 4};
                const auto code = static_cast<float>(row.at(at, 1));
                *to++ = (code - static_cast<float>(of_zeros.at(at, 1))) * scales[static_cast<std::size_t>(g * out + o)];
            }
        }
    };
    return std::optional(std::move(w));
}

/// compressed-tensors "pack-quantized": weight_packed [out, in bits / 32], codes less 2^(bits - 1), or less their zero.
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_packed(const checkpoint& base,
                                                                const quantization_config& config,
                                                                const tensor_info& t) {
    const std::string module(without_end(t.name, ".weight_packed"));
    if (module.empty() || t.type != dtype::i32) {
        return std::optional<quantized_weight>();
    }
    const tensor_info* shape = base.find(module + ".weight_shape");
    const tensor_info* scale = base.find(module + ".weight_scale");
    if (shape == nullptr || scale == nullptr) {
        return missing_part(t, module + (shape == nullptr ? ".weight_shape" : ".weight_scale"));
    }
    const auto extents = numbers_of(base, *shape);
    if (!extents || extents->size() != 2 || t.shape.size() != 2 || t.begin == t.end) {
        return wrong_part(*shape, "the two dimensions of a matrix");
    }
    const auto out = static_cast<index>(t.shape[0]);
    const auto words = static_cast<index>(t.shape[1]);
    if (!((*extents)[1] >= 1) || (*extents)[1] > 0x1p24F) {
        return wrong_part(*shape, "columns of 1 to 2^24");
    }
    const auto in = static_cast<index>((*extents)[1]);
    const auto holds = [&](int n) { return (in + 32 / n - 1) / (32 / n) == words; };
    const int bits = config.bits != 0 ? config.bits : holds(4) ? 4 : 8;
    if ((bits != 4 && bits != 8) || !holds(bits) || (*extents)[0] != static_cast<float>(out)) {
        return wrong_part(t, "codes of 4 or 8 bits of the matrix that " + in_quotes(shape->name) + " describes");
    }
    const index groups = static_cast<index>(elements_of(*scale)) / out;
    if (groups < 1 || static_cast<index>(elements_of(*scale)) != groups * out || groups > in) {
        return wrong_part(
            *scale, "one number for each group of each row of " + std::to_string(out) + " x " + std::to_string(in));
    }
    auto scales = numbers_of(base, *scale);
    const tensor_info* g_idx = base.find(module + ".weight_g_idx");
    auto group = groups_of_columns(base, g_idx, in, groups);
    if (!scales || !group) {
        return scales ? group.error() : scales.error();
    }
    quantized_weight w{.name = module + ".weight",
                       .scheme = "compressed-tensors, " + std::to_string(bits) + " bits",
                       .shape = {static_cast<std::uint64_t>(out), static_cast<std::uint64_t>(in)},
                       .parts = {t.name, scale->name, shape->name}};
    const std::byte* zeros = nullptr;
    if (const tensor_info* zero = base.find(module + ".weight_zero_point")) {
        const index rows = (out + 32 / bits - 1) / (32 / bits);
        if (zero->type != dtype::i32 || static_cast<index>(elements_of(*zero)) != rows * groups) {
            return wrong_part(*zero, "I32 words with a code for each group of each row");
        }
        zeros = base.bytes(*base.locate(zero->name)).data();
        w.parts.push_back(zero->name);
    }
    if (g_idx != nullptr) {
        w.parts.push_back(g_idx->name);
    }
    add_activation_parts(base, module, w);
    w.decode = [base, codes = base.bytes(*base.locate(t.name)).data(), zeros, scales = std::move(*scales),
                group = std::move(*group), in, words, groups, bits](index first, index count, float* to) {
        for (index o = first; o < first + count; ++o) {
            const bit_stream row{codes + o * words * 4, bits};
            for (index i = 0; i < in; ++i) {
                const index g = group[static_cast<std::size_t>(i)];
                const unsigned zero = zeros != nullptr ? bit_stream{zeros + g * 4, bits}.at(o, groups)
                                                       : 1U << static_cast<unsigned>(bits - 1);
                *to++ = (static_cast<float>(row.at(i, 1)) - static_cast<float>(zero)) *
                        scales[static_cast<std::size_t>(o * groups + g)];
            }
        }
    };
    return std::optional(std::move(w));
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_QUANTIZED_DETAIL_PACKED_INTEGERS_HPP

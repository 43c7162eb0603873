// SPDX-License-Identifier: MIT
#ifndef LOWRANK_QUANT_FORMATS_GGML_BLOCKS_HPP
#define LOWRANK_QUANT_FORMATS_GGML_BLOCKS_HPP

/// \file
/// Weights in ggml's blocks of few bits: to float, and back for Q8_0 and Q4_0.
///
///     std::vector<float> x(elements);
///     lowrank::dequantize_ggml(lowrank::ggml_type::q4_k, bytes, x);
///     lowrank::quantize_ggml(lowrank::ggml_type::q8_0, x, bytes);
///
/// Block layouts and the rounding of both encoders as in ggml-org/ggml, ggml-quants.c (the *_ref functions).

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/quant/formats/ggml_type.hpp>

namespace lowrank::inline LOWRANK_ABI {

static_assert(std::endian::native == std::endian::little, "ggml's blocks are little-endian, as is the memory");

namespace detail {

[[nodiscard]] inline float half_at(const std::uint8_t* p) noexcept {
    std::uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return static_cast<float>(std::bit_cast<half>(bits));
}
inline void put_half(std::uint8_t* p, float x) noexcept {
    const auto bits = std::bit_cast<std::uint16_t>(half(x));
    std::memcpy(p, &bits, sizeof bits);
}

template <class T>
void decode_plain(const std::uint8_t* from, float* to, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        T x;
        std::memcpy(&x, from + i * sizeof x, sizeof x);
        to[i] = static_cast<float>(x);
    }
}

/// 32 elements: d, q[32]; x = d q.
inline void decode_q8_0(const std::uint8_t* b, float* x) noexcept {
    const float d = half_at(b);
    for (int i = 0; i < 32; ++i) {
        x[i] = d * static_cast<float>(static_cast<std::int8_t>(b[2 + i]));
    }
}

/// 32 elements of 4 bits, the low nibbles first: x = d (q - 8), or x = d q + m with a minimum.
inline void decode_q4_0(const std::uint8_t* b, float* x) noexcept {
    const float d = half_at(b);
    for (int i = 0; i < 16; ++i) {
        x[i] = d * static_cast<float>((b[2 + i] & 15) - 8);
        x[i + 16] = d * static_cast<float>((b[2 + i] >> 4) - 8);
    }
}
inline void decode_q4_1(const std::uint8_t* b, float* x) noexcept {
    const float d = half_at(b);
    const float m = half_at(b + 2);
    for (int i = 0; i < 16; ++i) {
        x[i] = d * static_cast<float>(b[4 + i] & 15) + m;
        x[i + 16] = d * static_cast<float>(b[4 + i] >> 4) + m;
    }
}

/// The same with a fifth bit per element in a 32-bit word.
inline void decode_q5(const std::uint8_t* b, float* x, bool has_minimum) noexcept {
    const float d = half_at(b);
    const float m = has_minimum ? half_at(b + 2) : 0;
    const std::uint8_t* high = b + (has_minimum ? 4 : 2);
    std::uint32_t bits;
    std::memcpy(&bits, high, sizeof bits);
    const std::uint8_t* q = high + 4;
    for (unsigned i = 0; i < 16; ++i) {
        const auto low = static_cast<int>((q[i] & 15U) | ((bits >> i & 1U) << 4));
        const auto up = static_cast<int>((q[i] >> 4U) | ((bits >> (i + 16) & 1U) << 4));
        x[i] = has_minimum ? d * static_cast<float>(low) + m : d * static_cast<float>(low - 16);
        x[i + 16] = has_minimum ? d * static_cast<float>(up) + m : d * static_cast<float>(up - 16);
    }
}

struct scale_and_min {
    float scale;
    float min;
};
/// The 6-bit scale and minimum of sub-block j of eight, packed in 12 bytes.
[[nodiscard]] inline scale_and_min k_scale(const std::uint8_t* s, int j) noexcept {
    if (j < 4) {
        return {static_cast<float>(s[j] & 63), static_cast<float>(s[j + 4] & 63)};
    }
    return {static_cast<float>((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4)),
            static_cast<float>((s[j + 4] >> 4) | ((s[j] >> 6) << 4))};
}

/// 256 elements: d, dmin, 12 bytes of scales, for Q5_K 32 bytes of fifth bits, 128 bytes of nibbles; x = d s q - dmin
/// m.
inline void decode_q45_k(const std::uint8_t* b, float* x, bool five) noexcept {
    const float d = half_at(b);
    const float dmin = half_at(b + 2);
    const std::uint8_t* scales = b + 4;
    const std::uint8_t* high = b + 16;
    const std::uint8_t* q = b + (five ? 48 : 16);
    for (int j = 0; j < 8; ++j) {  // sub-blocks of 32: low nibbles, then high nibbles of the same bytes
        const auto [s, m] = k_scale(scales, j);
        const float scale = d * s;
        const float min = dmin * m;
        for (int i = 0; i < 32; ++i) {
            int value = j % 2 == 0 ? q[32 * (j / 2) + i] & 15 : q[32 * (j / 2) + i] >> 4;
            value |= five ? (high[i] >> j & 1) << 4 : 0;
            x[32 * j + i] = scale * static_cast<float>(value) - min;
        }
    }
}

/// 256 elements: 128 bytes of low nibbles, 64 bytes of two high bits, 16 signed scales, d; x = d s (q - 32).
inline void decode_q6_k(const std::uint8_t* b, float* x) noexcept {
    const float d = half_at(b + 208);
    for (int part = 0; part < 2; ++part) {
        const std::uint8_t* low = b + 64 * part;
        const std::uint8_t* high = b + 128 + 32 * part;
        for (int i = 0; i < 32; ++i) {
            for (int k = 0; k < 4; ++k) {  // four runs of 32 elements share these bytes
                const int nibble = k < 2 ? low[32 * k + i] & 15 : low[32 * (k - 2) + i] >> 4;
                const int value = (nibble | (high[i] >> (2 * k) & 3) << 4) - 32;
                const auto scale = static_cast<std::int8_t>(b[192 + 8 * part + 2 * k + i / 16]);
                x[128 * part + 32 * k + i] = d * static_cast<float>(scale) * static_cast<float>(value);
            }
        }
    }
}

/// A code that is no number, where 1 / d overflows (all of the block is below 2^-121), is 0.
[[nodiscard]] inline int code_of(float x) noexcept { return std::abs(x) < 128 ? static_cast<int>(x) : 0; }

/// d = max |x| / 127, q = x / d rounded half away from zero. The float d divides; its half is stored.
inline void encode_q8_0(const float* x, std::uint8_t* b) noexcept {
    float most = 0;
    for (int i = 0; i < 32; ++i) {
        most = std::max(most, std::abs(x[i]));
    }
    const float d = most / 127;
    const float inverse = d != 0 ? 1 / d : 0;
    put_half(b, d);
    for (int i = 0; i < 32; ++i) {
        b[2 + i] = static_cast<std::uint8_t>(code_of(std::round(x[i] * inverse)));
    }
}

/// d = the value of largest magnitude (the first of equals) / -8, q = x / d + 8 rounded half up, at most 15.
inline void encode_q4_0(const float* x, std::uint8_t* b) noexcept {
    float most = 0;
    float extreme = 0;
    for (int i = 0; i < 32; ++i) {
        if (most < std::abs(x[i])) {
            most = std::abs(x[i]);
            extreme = x[i];
        }
    }
    const float d = extreme / -8;
    const float inverse = d != 0 ? 1 / d : 0;
    put_half(b, d);
    const auto code = [&](float value) { return static_cast<unsigned>(std::min(15, code_of(value * inverse + 8.5F))); };
    for (int i = 0; i < 16; ++i) {
        b[2 + i] = static_cast<std::uint8_t>(code(x[i]) | code(x[i + 16]) << 4);
    }
}

}  // namespace detail

/// Bytes that `count` elements take. \pre `count` is a multiple of the type's block.
[[nodiscard]] inline std::size_t ggml_bytes(ggml_type type, std::size_t count) {
    const ggml_type_facts facts = facts_of(type);
    detail::expects(facts.block != 0, "ggml_bytes: not a ggml type");
    detail::expects(count % facts.block == 0, "ggml_bytes: the count must be a multiple of the block");
    return count / facts.block * facts.bytes;
}

/// Writes the elements of whole blocks to `out` as float.
///
/// \pre  `is_decodable(type)`; `bytes` is `ggml_bytes(type, out.size())` long; it may be unaligned.
/// \note The same bits as ggml's: the products of scales and codes are exact, so that contraction to fma changes none.
inline void dequantize_ggml(ggml_type type, std::span<const std::byte> bytes, std::span<float> out) {
    detail::expects(is_decodable(type), "dequantize_ggml: the type has no decoder here");
    detail::expects(bytes.size() == ggml_bytes(type, out.size()), "dequantize_ggml: sizes do not agree");
    const auto* b = reinterpret_cast<const std::uint8_t*>(bytes.data());
    float* x = out.data();
    switch (type) {
        case ggml_type::f32: return detail::decode_plain<float>(b, x, out.size());
        case ggml_type::f16: return detail::decode_plain<half>(b, x, out.size());
        case ggml_type::bf16: return detail::decode_plain<bfloat16>(b, x, out.size());
        case ggml_type::f64: return detail::decode_plain<double>(b, x, out.size());
        default: break;
    }
    const ggml_type_facts facts = facts_of(type);
    for (std::size_t i = 0; i < out.size(); i += facts.block, b += facts.bytes, x += facts.block) {
        switch (type) {
            case ggml_type::q8_0: detail::decode_q8_0(b, x); break;
            case ggml_type::q4_0: detail::decode_q4_0(b, x); break;
            case ggml_type::q4_1: detail::decode_q4_1(b, x); break;
            case ggml_type::q5_0: detail::decode_q5(b, x, false); break;
            case ggml_type::q5_1: detail::decode_q5(b, x, true); break;
            case ggml_type::q4_k: detail::decode_q45_k(b, x, false); break;
            case ggml_type::q5_k: detail::decode_q45_k(b, x, true); break;
            default: detail::decode_q6_k(b, x);
        }
    }
}

/// Writes `x` as whole blocks, rounded once: the same bytes as ggml's quantizer without an importance matrix.
///
/// \pre `type` is F32, F16, BF16, Q8_0 or Q4_0; `out` is `ggml_bytes(type, x.size())` long; `x` is finite.
inline void quantize_ggml(ggml_type type, std::span<const float> x, std::span<std::byte> out) {
    detail::expects(out.size() == ggml_bytes(type, x.size()), "quantize_ggml: sizes do not agree");
    auto* b = reinterpret_cast<std::uint8_t*>(out.data());
    switch (type) {
        case ggml_type::f32:
            if (!x.empty()) {
                std::memcpy(b, x.data(), out.size());
            }
            return;
        case ggml_type::f16:
        case ggml_type::bf16:
            for (std::size_t i = 0; i < x.size(); ++i) {
                const auto bits = type == ggml_type::f16 ? std::bit_cast<std::uint16_t>(half(x[i]))
                                                         : std::bit_cast<std::uint16_t>(bfloat16(x[i]));
                std::memcpy(b + 2 * i, &bits, sizeof bits);
            }
            return;
        case ggml_type::q8_0:
            for (std::size_t i = 0; i < x.size(); i += 32, b += 34) {
                detail::encode_q8_0(x.data() + i, b);
            }
            return;
        case ggml_type::q4_0:
            for (std::size_t i = 0; i < x.size(); i += 32, b += 18) {
                detail::encode_q4_0(x.data() + i, b);
            }
            return;
        default: detail::fail_contract("quantize_ggml: only F32, F16, BF16, Q8_0 and Q4_0 can be written");
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_QUANT_FORMATS_GGML_BLOCKS_HPP

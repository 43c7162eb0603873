// SPDX-License-Identifier: MIT
#ifndef LOWRANK_QUANT_FORMATS_GGML_BLOCKS_HPP
#define LOWRANK_QUANT_FORMATS_GGML_BLOCKS_HPP

/// \file
/// Quantized types as entries of a list, and weights in ggml's blocks of few bits: to float and back.
///
///     std::vector<float> values(256);                                        // whole blocks
///     std::vector<std::byte> blocks(144);
///     lowrank::dequantize_ggml(lowrank::ggml_type::q4_k, blocks, values);
///     blocks.resize(272);
///     lowrank::quantize_ggml(lowrank::ggml_type::q8_0, values, blocks);
///
/// What reads and writes types takes the list; a program adds a type by passing a list of its own.
/// Block layouts and the rounding of both encoders as in ggml-org/ggml, ggml-quants.c (the *_ref functions).

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

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
void decode_plain(const std::uint8_t* from, float* to) noexcept {
    T x;
    std::memcpy(&x, from, sizeof x);
    *to = static_cast<float>(x);
}
template <class T>
void encode_plain(const float* from, std::uint8_t* to) noexcept {
    const T x = static_cast<T>(*from);
    std::memcpy(to, &x, sizeof x);
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
template <bool has_minimum>
void decode_q5(const std::uint8_t* b, float* x) noexcept {
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

/// 256 elements: d, dmin, 12 bytes of scales, for Q5_K 32 bytes of fifth bits, 128 bytes of nibbles;
/// x = d s q - dmin m.
template <bool five>
void decode_q45_k(const std::uint8_t* b, float* x) noexcept {
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

/// A type of elements in files: how many share a block, how many bytes that takes, and how blocks are read and written.
struct quantized_type {
    ggml_type type = ggml_type::f32;  ///< The number files use.
    std::string_view name = {};
    std::uint32_t block = 0;  ///< Elements in a block; 0 for a number that names no type.
    std::uint32_t bytes = 0;  ///< Bytes of a block.
    void (*decode)(const std::uint8_t* from, float* to, std::size_t blocks) = nullptr;  ///< Null: cannot be read.
    void (*encode)(const float* from, std::uint8_t* to, std::size_t blocks) = nullptr;  ///< Null: cannot be written.
};

/// The entry of a type whose blocks `Decode` reads and `Encode` writes, one at a time.
template <std::uint32_t Block, std::uint32_t Bytes, void (*Decode)(const std::uint8_t*, float*),
          void (*Encode)(const float*, std::uint8_t*) = nullptr>
[[nodiscard]] constexpr quantized_type quantized_type_of(ggml_type type, std::string_view name) noexcept {
    quantized_type out{type, name, Block, Bytes};
    out.decode = [](const std::uint8_t* from, float* to, std::size_t blocks) {
        for (; blocks != 0; --blocks, from += Bytes, to += Block) {
            Decode(from, to);
        }
    };
    if constexpr (Encode != nullptr) {
        out.encode = [](const float* from, std::uint8_t* to, std::size_t blocks) {
            for (; blocks != 0; --blocks, from += Block, to += Bytes) {
                Encode(from, to);
            }
        };
    }
    return out;
}

namespace detail {

inline constexpr auto known_quantized_types = [] {
    using enum ggml_type;
    return std::array{
        quantized_type_of<1, 4, decode_plain<float>, encode_plain<float>>(f32, "F32"),
        quantized_type_of<1, 2, decode_plain<half>, encode_plain<half>>(f16, "F16"),
        quantized_type_of<32, 18, decode_q4_0, encode_q4_0>(q4_0, "Q4_0"),
        quantized_type_of<32, 20, decode_q4_1>(q4_1, "Q4_1"),
        quantized_type_of<32, 22, decode_q5<false>>(q5_0, "Q5_0"),
        quantized_type_of<32, 24, decode_q5<true>>(q5_1, "Q5_1"),
        quantized_type_of<32, 34, decode_q8_0, encode_q8_0>(q8_0, "Q8_0"),
        quantized_type{q8_1, "Q8_1", 32, 36},
        quantized_type{q2_k, "Q2_K", 256, 84},
        quantized_type{q3_k, "Q3_K", 256, 110},
        quantized_type_of<256, 144, decode_q45_k<false>>(q4_k, "Q4_K"),
        quantized_type_of<256, 176, decode_q45_k<true>>(q5_k, "Q5_K"),
        quantized_type_of<256, 210, decode_q6_k>(q6_k, "Q6_K"),
        quantized_type{q8_k, "Q8_K", 256, 292},
        quantized_type{iq2_xxs, "IQ2_XXS", 256, 66},
        quantized_type{iq2_xs, "IQ2_XS", 256, 74},
        quantized_type{iq3_xxs, "IQ3_XXS", 256, 98},
        quantized_type{iq1_s, "IQ1_S", 256, 50},
        quantized_type{iq4_nl, "IQ4_NL", 32, 18},
        quantized_type{iq3_s, "IQ3_S", 256, 110},
        quantized_type{iq2_s, "IQ2_S", 256, 82},
        quantized_type{iq4_xs, "IQ4_XS", 256, 136},
        quantized_type{i8, "I8", 1, 1},
        quantized_type{i16, "I16", 1, 2},
        quantized_type{i32, "I32", 1, 4},
        quantized_type{i64, "I64", 1, 8},
        quantized_type_of<1, 8, decode_plain<double>>(f64, "F64"),
        quantized_type{iq1_m, "IQ1_M", 256, 56},
        quantized_type_of<1, 2, decode_plain<bfloat16>, encode_plain<bfloat16>>(bf16, "BF16"),
        quantized_type{tq1_0, "TQ1_0", 256, 54},
        quantized_type{tq2_0, "TQ2_0", 256, 66},
        quantized_type{mxfp4, "MXFP4", 32, 17},
    };
}();

}  // namespace detail

/// The types of ggml.
[[nodiscard]] constexpr std::span<const quantized_type> quantized_types() noexcept {
    return detail::known_quantized_types;
}

/// The entry of a type; one of block 0 if the list has none.
[[nodiscard]] constexpr quantized_type facts_of(ggml_type type,
                                                std::span<const quantized_type> among = quantized_types()) noexcept {
    for (const quantized_type& t : among) {
        if (t.type == type) {
            return t;
        }
    }
    return {};
}

/// True for the types `dequantize_ggml` reads.
[[nodiscard]] constexpr bool is_decodable(ggml_type type,
                                          std::span<const quantized_type> among = quantized_types()) noexcept {
    return facts_of(type, among).decode != nullptr;
}

/// Bytes that `count` elements take. \pre `count` is a multiple of the type's block.
[[nodiscard]] inline std::size_t ggml_bytes(ggml_type type, std::size_t count,
                                            std::span<const quantized_type> among = quantized_types()) {
    const quantized_type facts = facts_of(type, among);
    detail::expects(facts.block != 0, "ggml_bytes: not a ggml type");
    detail::expects(count % facts.block == 0, "ggml_bytes: the count must be a multiple of the block");
    return count / facts.block * facts.bytes;
}

/// Writes the elements of whole blocks to `out` as float.
///
/// \pre  `is_decodable(type)`; `bytes` is `ggml_bytes(type, out.size())` long; it may be unaligned.
/// \note The same bits as ggml's: the products of scales and codes are exact, so that contraction to fma changes none.
inline void dequantize_ggml(ggml_type type, std::span<const std::byte> bytes, std::span<float> out,
                            std::span<const quantized_type> among = quantized_types()) {
    const quantized_type facts = facts_of(type, among);
    detail::expects(facts.decode != nullptr, "dequantize_ggml: the type has no decoder here");
    detail::expects(bytes.size() == ggml_bytes(type, out.size(), among), "dequantize_ggml: sizes do not agree");
    facts.decode(reinterpret_cast<const std::uint8_t*>(bytes.data()), out.data(), out.size() / facts.block);
}

/// Writes `x` as whole blocks, rounded once: the same bytes as ggml's quantizer without an importance matrix.
///
/// \pre `type` has an encoder: F32, F16, BF16, Q8_0, Q4_0; `out` is `ggml_bytes(type, x.size())` long; `x` is finite.
inline void quantize_ggml(ggml_type type, std::span<const float> x, std::span<std::byte> out,
                          std::span<const quantized_type> among = quantized_types()) {
    const quantized_type facts = facts_of(type, among);
    detail::expects(facts.encode != nullptr, "quantize_ggml: the type has no encoder here");
    detail::expects(out.size() == ggml_bytes(type, x.size(), among), "quantize_ggml: sizes do not agree");
    facts.encode(x.data(), reinterpret_cast<std::uint8_t*>(out.data()), x.size() / facts.block);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_QUANT_FORMATS_GGML_BLOCKS_HPP

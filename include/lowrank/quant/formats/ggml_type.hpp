// SPDX-License-Identifier: MIT
#ifndef LOWRANK_QUANT_FORMATS_GGML_TYPE_HPP
#define LOWRANK_QUANT_FORMATS_GGML_TYPE_HPP

/// \file
/// The element types of ggml tensors: how many elements share a block, and how many bytes a block takes.
///
///     lowrank::facts_of(lowrank::ggml_type::q8_0)      // {"Q8_0", 32, 34}
///
/// Numbers as in ggml-org/ggml, ggml.h.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The numbers files use. Types that ggml removed are absent.
enum class ggml_type : std::int32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q8_1 = 9,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    q8_k = 15,
    iq2_xxs = 16,
    iq2_xs = 17,
    iq3_xxs = 18,
    iq1_s = 19,
    iq4_nl = 20,
    iq3_s = 21,
    iq2_s = 22,
    iq4_xs = 23,
    i8 = 24,
    i16 = 25,
    i32 = 26,
    i64 = 27,
    f64 = 28,
    iq1_m = 29,
    bf16 = 30,
    tq1_0 = 34,
    tq2_0 = 35,
    mxfp4 = 39,
};

struct ggml_type_facts {
    std::string_view name = {};
    std::uint32_t block = 0;  ///< Elements in a block; 0 for a number that names no type.
    std::uint32_t bytes = 0;  ///< Bytes of a block.
};

namespace detail {

inline constexpr std::array<ggml_type_facts, 40> ggml_types{{
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"Q4_0", 32, 18},
    {"Q4_1", 32, 20},
    {},
    {},
    {"Q5_0", 32, 22},
    {"Q5_1", 32, 24},
    {"Q8_0", 32, 34},
    {"Q8_1", 32, 36},
    {"Q2_K", 256, 84},
    {"Q3_K", 256, 110},
    {"Q4_K", 256, 144},
    {"Q5_K", 256, 176},
    {"Q6_K", 256, 210},
    {"Q8_K", 256, 292},
    {"IQ2_XXS", 256, 66},
    {"IQ2_XS", 256, 74},
    {"IQ3_XXS", 256, 98},
    {"IQ1_S", 256, 50},
    {"IQ4_NL", 32, 18},
    {"IQ3_S", 256, 110},
    {"IQ2_S", 256, 82},
    {"IQ4_XS", 256, 136},
    {"I8", 1, 1},
    {"I16", 1, 2},
    {"I32", 1, 4},
    {"I64", 1, 8},
    {"F64", 1, 8},
    {"IQ1_M", 256, 56},
    {"BF16", 1, 2},
    {},
    {},
    {},
    {"TQ1_0", 256, 54},
    {"TQ2_0", 256, 66},
    {},
    {},
    {},
    {"MXFP4", 32, 17},
}};

}  // namespace detail

/// Name and block of a type; block 0 if the number names none.
[[nodiscard]] constexpr ggml_type_facts facts_of(ggml_type type) noexcept {
    const auto number = static_cast<std::int32_t>(type);
    return number >= 0 && static_cast<std::size_t>(number) < detail::ggml_types.size()
               ? detail::ggml_types[static_cast<std::size_t>(number)]
               : ggml_type_facts{};
}

/// True for the types `dequantize_ggml` reads.
[[nodiscard]] constexpr bool is_decodable(ggml_type type) noexcept {
    switch (type) {
        case ggml_type::f32:
        case ggml_type::f16:
        case ggml_type::bf16:
        case ggml_type::f64:
        case ggml_type::q8_0:
        case ggml_type::q4_0:
        case ggml_type::q4_1:
        case ggml_type::q5_0:
        case ggml_type::q5_1:
        case ggml_type::q4_k:
        case ggml_type::q5_k:
        case ggml_type::q6_k: return true;
        default: return false;
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_QUANT_FORMATS_GGML_TYPE_HPP

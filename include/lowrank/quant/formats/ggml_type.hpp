// SPDX-License-Identifier: MIT
#ifndef LOWRANK_QUANT_FORMATS_GGML_TYPE_HPP
#define LOWRANK_QUANT_FORMATS_GGML_TYPE_HPP

/// \file
/// The numbers that ggml gives to types of elements; `quantized_types` (ggml_blocks.hpp) says what they are.
///
///     const lowrank::ggml_type type = lowrank::ggml_type::q8_0;
///
/// Numbers as in ggml-org/ggml, ggml.h.

#include <cstdint>

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

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_QUANT_FORMATS_GGML_TYPE_HPP

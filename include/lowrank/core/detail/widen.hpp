// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_DETAIL_WIDEN_HPP
#define LOWRANK_CORE_DETAIL_WIDEN_HPP

/// \file
/// 16-bit storage to float, exactly, and float to 16-bit storage, rounded to the nearest, in loops a compiler turns
/// into vectors on any machine.
///
///     lowrank::detail::widen(w.data(), w.cols(), row);
///     w(0, 0) = lowrank::detail::narrowed<lowrank::bfloat16>(row[0]);

#include <bit>
#include <concepts>
#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// The float that equals `x`, from its bits: subnormals, infinities and NaN payloads included.
template <storage T>
requires(!real<T>) [[nodiscard]] inline float widened(T x) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint16_t>(x);
    if constexpr (std::same_as<T, bfloat16>) {
        return std::bit_cast<float>(bits << 16);
    } else {
        const std::uint32_t sign = (bits & 0x8000U) << 16, rest = (bits & 0x7fffU) << 13;
        // Normal: rebias the exponent by 112; infinity and NaN: once more, to all ones.
        const std::uint32_t large = rest + (rest >= 0x0f800000U ? 224U << 23 : 112U << 23);
        // Subnormal: mantissa * 2^-24 as the difference of two floats, which is exact and needs no subnormal float.
        const float small = std::bit_cast<float>((113U << 23) | rest) - 0x1p-14F;
        const std::uint32_t value = rest < 0x00800000U ? std::bit_cast<std::uint32_t>(small) : large;
        return std::bit_cast<float>(value | sign);
    }
}

/// The T nearest to `x`, ties to even; infinity beyond its range. NaN stays NaN.
template <storage T>
requires(!real<T>) [[nodiscard]] inline T narrowed(float x) noexcept {
    const auto all = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t sign = (all & 0x80000000U) >> 16, rest = all & 0x7fffffffU;
    constexpr std::uint32_t infinity = 0x7f800000U;
    if constexpr (std::same_as<T, bfloat16>) {
        const std::uint32_t rounded = (rest + 0x7fffU + ((rest >> 16) & 1U)) >> 16;
        const std::uint32_t value = rest > infinity ? 0x7fc0U : rounded;  // rounding would carry NaN into the sign
        return std::bit_cast<T>(static_cast<std::uint16_t>(value | sign));
    } else {
        // Normal: rebias the exponent by -112 and round at bit 13, ties to even.
        const std::uint32_t normal = (rest - (112U << 23) + 0xfffU + ((rest >> 13) & 1U)) >> 13;
        // Subnormal: adding 0.5 moves the last place of the sum to 2^-24, and the addition itself rounds.
        const std::uint32_t small = std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest) + 0.5F) - (126U << 23);
        const std::uint32_t finite = rest < (113U << 23) ? small : normal;
        const std::uint32_t beyond = rest > infinity ? 0x7e00U : 0x7c00U;
        return std::bit_cast<T>(static_cast<std::uint16_t>((rest < (143U << 23) ? finite : beyond) | sign));
    }
}

/// to[i] = from[i] for i in [0, count).
template <storage T>
requires(!real<T>) inline void widen(const T* from, index count, float* to) noexcept {
    for (index i = 0; i < count; ++i) {
        to[i] = widened(from[i]);
    }
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_CORE_DETAIL_WIDEN_HPP

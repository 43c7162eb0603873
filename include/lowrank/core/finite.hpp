// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_FINITE_HPP
#define LOWRANK_CORE_FINITE_HPP

/// \file
/// Finiteness read from bits, because engines compile with -ffast-math, where std::isfinite(NaN) is true.
///
///     if (!lowrank::all_finite(w)) log("the weight contains NaN or infinity");

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// True unless `x` is NaN or infinite: its exponent bits are not all ones.
template <storage T>
[[nodiscard]] constexpr bool is_finite(T x) noexcept {
    if constexpr (std::same_as<T, double>) {
        constexpr std::uint64_t exponent = 0x7ff0'0000'0000'0000U;
        return (std::bit_cast<std::uint64_t>(x) & exponent) != exponent;
    } else if constexpr (std::same_as<T, float>) {
        constexpr std::uint32_t exponent = 0x7f80'0000U;
        return (std::bit_cast<std::uint32_t>(x) & exponent) != exponent;
    } else {
        constexpr std::uint16_t exponent = std::same_as<T, half> ? 0x7c00U : 0x7f80U;
        return (std::bit_cast<std::uint16_t>(x) & exponent) != exponent;
    }
}

/// True if every element of `data[0, count)` is finite. Reads memory once.
template <storage T>
[[nodiscard]] bool all_finite(const T* data, index count) noexcept {
    // Fixed-size chunks without a branch inside let the compiler vectorize; the early exit is per chunk.
    constexpr index chunk = 256;
    for (index begin = 0; begin < count; begin += chunk) {
        const index end = count < begin + chunk ? count : begin + chunk;
        unsigned bad = 0;
        for (index i = begin; i < end; ++i) {
            bad |= is_finite(data[i]) ? 0U : 1U;
        }
        if (bad != 0) {
            return false;
        }
    }
    return true;
}

/// True if every entry of a matrix, map or view is finite.
template <detail::eigen_dense D>
requires(storage<typename D::Scalar>&& requires(const D& x) { x.data(); })
    [[nodiscard]] bool all_finite(const D& x) noexcept {
    for (index outer = 0; outer < x.outerSize(); ++outer) {
        if (x.innerStride() == 1) {
            if (!all_finite(x.data() + outer * x.outerStride(), x.innerSize())) {
                return false;
            }
        } else {
            for (index inner = 0; inner < x.innerSize(); ++inner) {
                if (!is_finite(x.data()[outer * x.outerStride() + inner * x.innerStride()])) {
                    return false;
                }
            }
        }
    }
    return true;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_FINITE_HPP

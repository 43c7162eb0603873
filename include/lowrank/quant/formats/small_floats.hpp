// SPDX-License-Identifier: MIT
#ifndef LOWRANK_QUANT_FORMATS_SMALL_FLOATS_HPP
#define LOWRANK_QUANT_FORMATS_SMALL_FLOATS_HPP

/// \file
/// Floats of 8 and 4 bits, as tables of all their values.
///
///     const std::array<float, 256> values = lowrank::float8_values(lowrank::float8_format::e4m3);
///     float largest = values[0x7e];                                          // 448
///     std::uint8_t code = lowrank::float8_encoder(lowrank::float8_format::e4m3)(0.3F);   // of 0.3125
///     float smallest = lowrank::float4_values[1];                            // 0.5
///
/// Micikevicius et al., FP8 formats for deep learning, arXiv 2209.05433 (E4M3 without infinities, E5M2); their
/// "fnuz" variants have one zero, one NaN and a bias one larger. OCP Microscaling Formats 1.0 (E8M0, E2M1).

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

enum class float8_format : std::uint8_t {
    e4m3,      ///< 3 bits of mantissa, no infinity, largest 448.
    e5m2,      ///< 2 bits of mantissa, infinities as in IEEE 754, largest 57344.
    e4m3fnuz,  ///< Largest 240; code 0x80 is NaN.
    e5m2fnuz,  ///< Largest 57344; code 0x80 is NaN.
    e8m0,      ///< Powers of two, from 2^-127 to 2^127; code 0xff is NaN.
};

namespace detail {

/// The number of a code that has a sign and `mantissa` bits behind its exponent.
[[nodiscard]] inline float signed_float8_value(unsigned code, int mantissa, bool has_infinity, bool is_fnuz) noexcept {
    const int bits = 7 - mantissa;
    const int bias = (1 << (bits - 1)) - (is_fnuz ? 0 : 1);
    const int exponent = static_cast<int>(code & 0x7fU) >> mantissa;
    const auto fraction = static_cast<int>(code & ((1U << static_cast<unsigned>(mantissa)) - 1));
    const bool is_top = exponent == (1 << bits) - 1;
    if (is_fnuz ? code == 0x80U : has_infinity ? is_top && fraction != 0 : (code & 0x7fU) == 0x7fU) {
        return std::numeric_limits<float>::quiet_NaN();
    }
    const float sign = (code & 0x80U) != 0 ? -1.0F : 1.0F;
    if (has_infinity && is_top) {
        return sign * std::numeric_limits<float>::infinity();
    }
    const int lead = exponent == 0 ? 0 : 1 << mantissa;
    return sign * std::ldexp(static_cast<float>(lead + fraction), (exponent == 0 ? 1 : exponent) - bias - mantissa);
}

}  // namespace detail

/// The number that a code stands for. Exact.
[[nodiscard]] inline float float8_value(float8_format format, std::uint8_t code) noexcept {
    switch (format) {
        case float8_format::e4m3: return detail::signed_float8_value(code, 3, false, false);
        case float8_format::e5m2: return detail::signed_float8_value(code, 2, true, false);
        case float8_format::e4m3fnuz: return detail::signed_float8_value(code, 3, false, true);
        case float8_format::e5m2fnuz: return detail::signed_float8_value(code, 2, false, true);
        default:
            return code == 0xff ? std::numeric_limits<float>::quiet_NaN()
                                : std::ldexp(1.0F, static_cast<int>(code) - 127);
    }
}

/// The numbers of all codes.
[[nodiscard]] inline std::array<float, 256> float8_values(float8_format format) noexcept {
    std::array<float, 256> values{};
    for (std::size_t code = 0; code < values.size(); ++code) {
        values[code] = float8_value(format, static_cast<std::uint8_t>(code));
    }
    return values;
}

/// Rounds to floats of 8 bits with a sign: to the nearest, the even code at ties; what is larger than the largest number,
/// infinities too, becomes the largest. NaN stays NaN.
class float8_encoder {
public:
    /// \pre `format` is not E8M0.
    explicit float8_encoder(float8_format format) noexcept : values_(float8_values(format)) {
        while (largest_ < 127 && std::isfinite(values_[largest_ + 1])) {
            ++largest_;
        }
        has_negative_zero_ = !std::isnan(values_[0x80]);
        nan_ = has_negative_zero_ ? 0x7f : 0x80;
    }

    [[nodiscard]] float largest() const noexcept { return values_[largest_]; }
    [[nodiscard]] const std::array<float, 256>& values() const noexcept { return values_; }

    /// \cost 7 comparisons.
    [[nodiscard]] std::uint8_t operator()(float x) const noexcept {
        if (std::isnan(x)) {
            return nan_;
        }
        const float size = std::abs(x);
        const auto begin = values_.begin();
        const auto above = std::upper_bound(begin, begin + static_cast<std::ptrdiff_t>(largest_) + 1, size);
        auto code = static_cast<std::size_t>(above - begin) - 1;  // the largest that is not larger; zero is not
        if (code != largest_) {
            const float half_way = 0.5F * (values_[code] + values_[code + 1]);  // exact
            code += size > half_way || (size == half_way && code % 2 == 1) ? 1U : 0U;
        }
        const bool is_negative = std::signbit(x) && (code != 0 || has_negative_zero_);
        return static_cast<std::uint8_t>(code | (is_negative ? 0x80U : 0U));
    }

private:
    std::array<float, 256> values_;
    std::size_t largest_ = 0;
    bool has_negative_zero_ = true;
    std::uint8_t nan_ = 0x7f;
};

/// The numbers of all codes of E2M1, the float of 4 bits in MXFP4 and NVFP4.
inline constexpr std::array<float, 16> float4_values{0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                                     -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_QUANT_FORMATS_SMALL_FLOATS_HPP

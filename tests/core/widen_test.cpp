// SPDX-License-Identifier: MIT
#include <lowrank/core/detail/widen.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

/// The value of a 16-bit pattern, from the definition of its format.
double value_of(std::uint32_t bits, int exponent_bits) {
    const int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
    const auto exponent = static_cast<int>((bits & 0x7fffU) >> mantissa_bits);
    const auto mantissa = static_cast<double>(bits & ((1U << mantissa_bits) - 1U));
    const double unit = std::ldexp(1.0, -mantissa_bits);
    return exponent == 0 ? sign * std::ldexp(mantissa * unit, 1 - bias)
                         : sign * std::ldexp(1.0 + mantissa * unit, exponent - bias);
}

}  // namespace

TEST_CASE_TEMPLATE("every 16-bit pattern widens to its value", T, half, bfloat16) {
    const int exponent_bits = std::is_same_v<T, half> ? 5 : 8, mantissa_bits = 15 - exponent_bits;
    const std::uint32_t special = ((1U << exponent_bits) - 1U) << mantissa_bits;
    std::vector<T> all(65536);
    for (std::uint32_t bits = 0; bits <= 0xffffU; ++bits) {
        all[bits] = std::bit_cast<T>(static_cast<std::uint16_t>(bits));
    }
    std::vector<float> wide(65536);
    detail::widen(all.data(), 65536, wide.data());
    for (std::uint32_t bits = 0; bits <= 0xffffU; ++bits) {
        const auto got = std::bit_cast<std::uint32_t>(wide[bits]);
        std::uint32_t want = 0;
        if ((bits & special) == special) {  // infinity, or NaN with its payload
            want = ((bits & 0x8000U) << 16) | 0x7f800000U |
                   ((bits & ((1U << mantissa_bits) - 1U)) << (23 - mantissa_bits));
        } else {
            want = std::bit_cast<std::uint32_t>(static_cast<float>(value_of(bits, exponent_bits)));
        }
        if (got != want) {
            FAIL("pattern " << bits << ": got " << got << ", want " << want);
        }
    }
}

TEST_CASE_TEMPLATE("narrowing rounds to the nearest pattern, ties to even", T, half, bfloat16) {
    const int exponent_bits = std::is_same_v<T, half> ? 5 : 8, mantissa_bits = 15 - exponent_bits;
    const std::uint32_t infinity = ((1U << exponent_bits) - 1U) << mantissa_bits;
    const auto narrow = [](double x) {
        return std::uint32_t{std::bit_cast<std::uint16_t>(detail::narrowed<T>(static_cast<float>(x)))};
    };
    std::uint32_t wrong = 0;
    for (std::uint32_t bits = 0; bits < infinity; ++bits) {
        const double here = value_of(bits, exponent_bits);
        const double next = value_of(bits + 1, exponent_bits);  // at the end: the first power of two out of range
        const double middle = (here + next) / 2, step = (next - here) / 64;
        const std::uint32_t even = (bits & 1U) == 0 ? bits : bits + 1;
        wrong += narrow(here) == bits && narrow(-here) == (bits | 0x8000U) ? 0 : 1;
        if (middle < 0x1p-130 || middle > 0x1.fffffep127) {
            continue;  // a float cannot hold the points between
        }
        wrong += narrow(middle) == even && narrow(-middle) == (even | 0x8000U) ? 0 : 1;
        wrong += narrow(middle - step) == bits && narrow(middle + step) == bits + 1 ? 0 : 1;
    }
    CHECK(wrong == 0);
    CHECK(narrow(std::numeric_limits<float>::max()) == infinity);
    CHECK(narrow(-std::numeric_limits<double>::infinity()) == (infinity | 0x8000U));
    for (const std::uint32_t nan : {0x7fc00000U, 0x7fffffffU, 0x7f800001U, 0x7fff8000U, 0xffffffffU, 0xff800001U}) {
        const auto bits = std::uint32_t{std::bit_cast<std::uint16_t>(detail::narrowed<T>(std::bit_cast<float>(nan)))};
        CHECK((bits & 0x7fffU) > infinity);  // NaN stays NaN, CUDA's 0x7fffffff too
        CHECK((bits >> 15) == (nan >> 31));
    }
}

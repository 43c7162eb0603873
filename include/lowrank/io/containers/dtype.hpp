// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DTYPE_HPP
#define LOWRANK_IO_CONTAINERS_DTYPE_HPP

/// \file
/// The element types a safetensors file can name, and which of them are scalars here.
///
///     auto type = lowrank::dtype_named("BF16");                            // dtype::bf16
///     static_assert(lowrank::dtype_of<float> == lowrank::dtype::f32);
///     std::vector<float> values(bytes.size() / 2);
///     lowrank::convert_elements<float>(lowrank::dtype::f16, bytes, values);   // exactly where that is possible

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/quant/formats/small_floats.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// In the order of the reference implementation, which is the order (highest first) in which its writer lays tensors
/// out.
enum class dtype : std::uint8_t {
    boolean,
    f4,
    f6_e2m3,
    f6_e3m2,
    u8,
    i8,
    f8_e5m2,
    f8_e4m3,
    f8_e8m0,
    f8_e4m3fnuz,
    f8_e5m2fnuz,
    i16,
    u16,
    f16,
    bf16,
    i32,
    u32,
    f32,
    c64,
    f64,
    i64,
    u64,
};

namespace detail {

struct dtype_facts {
    std::string_view name;
    unsigned bits;
};

inline constexpr std::array<dtype_facts, 22> dtype_table{{
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
}};
static_assert(static_cast<std::size_t>(dtype::u64) + 1 == dtype_table.size());

template <class T>
constexpr dtype dtype_for() {
    if constexpr (std::is_same_v<T, float>) {
        return dtype::f32;
    } else if constexpr (std::is_same_v<T, double>) {
        return dtype::f64;
    } else if constexpr (std::is_same_v<T, half>) {
        return dtype::f16;
    } else {
        static_assert(std::is_same_v<T, bfloat16>);
        return dtype::bf16;
    }
}

}  // namespace detail

/// The name a file uses: "F32".
[[nodiscard]] constexpr std::string_view name_of(dtype type) noexcept {
    return detail::dtype_table[static_cast<std::size_t>(type)].name;
}

/// Bits of one element; 4 and 6 for the sub-byte floats.
[[nodiscard]] constexpr unsigned bits_of(dtype type) noexcept {
    return detail::dtype_table[static_cast<std::size_t>(type)].bits;
}

/// The type with this exact, case-sensitive name, if there is one.
[[nodiscard]] constexpr std::optional<dtype> dtype_named(std::string_view name) noexcept {
    for (std::size_t i = 0; i < detail::dtype_table.size(); ++i) {
        if (detail::dtype_table[i].name == name) {
            return static_cast<dtype>(i);
        }
    }
    return std::nullopt;
}

/// The file's type of a stored scalar.
template <storage T>
inline constexpr dtype dtype_of = detail::dtype_for<T>();

/// True for the types `convert_elements` reads: F64, F32, F16, BF16.
[[nodiscard]] constexpr bool is_real(dtype type) noexcept {
    return type == dtype::f64 || type == dtype::f32 || type == dtype::f16 || type == dtype::bf16;
}

namespace detail {

template <storage T, real S>
void convert_from(const std::byte* from, S* to, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        T x;
        std::memcpy(&x, from + i * sizeof(T), sizeof(T));
        to[i] = static_cast<S>(x);
    }
}

}  // namespace detail

/// Writes the elements in `bytes`, which may be unaligned, to `out`. Widening is exact, F64 to float rounds to nearest.
///
/// \pre `is_real(type)` and `bytes` holds as many elements as `out`.
template <real S>
void convert_elements(dtype type, std::span<const std::byte> bytes, std::span<S> out) {
    detail::expects(is_real(type), "convert_elements: the type must be F64, F32, F16 or BF16");
    detail::expects(bytes.size() == out.size() * (bits_of(type) / 8), "convert_elements: sizes do not agree");
    if (out.empty()) {
        return;
    }
    if (type == dtype_of<S>) {
        std::memcpy(out.data(), bytes.data(), bytes.size());
        return;
    }
    switch (type) {
        case dtype::f64: return detail::convert_from<double>(bytes.data(), out.data(), out.size());
        case dtype::f32: return detail::convert_from<float>(bytes.data(), out.data(), out.size());
        case dtype::f16: return detail::convert_from<half>(bytes.data(), out.data(), out.size());
        default: return detail::convert_from<bfloat16>(bytes.data(), out.data(), out.size());
    }
}

/// True for the types `convert_numbers` reads: all but those of less than a byte and complex ones.
[[nodiscard]] constexpr bool is_number(dtype type) noexcept { return bits_of(type) >= 8 && type != dtype::c64; }

namespace detail {

template <class T>
void numbers_from(std::span<const std::byte> bytes, std::span<double> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        T x;
        std::memcpy(&x, bytes.data() + i * sizeof(T), sizeof(T));
        out[i] = static_cast<double>(x);
    }
}

}  // namespace detail

/// Elements of any type of numbers as doubles: integers, 8-bit floats and booleans too. 64-bit integers are rounded.
///
/// \pre `is_number(type)` and `bytes` holds as many elements as `out`.
inline void convert_numbers(dtype type, std::span<const std::byte> bytes, std::span<double> out) {
    detail::expects(is_number(type) && bytes.size() == out.size() * (bits_of(type) / 8),
                    "convert_numbers: sizes or type do not agree");
    const auto float8 = [&](float8_format format) {
        const std::array<float, 256> values = float8_values(format);
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i] = static_cast<double>(values[static_cast<std::size_t>(bytes[i])]);
        }
    };
    switch (type) {
        case dtype::boolean:
        case dtype::u8: return detail::numbers_from<std::uint8_t>(bytes, out);
        case dtype::i8: return detail::numbers_from<std::int8_t>(bytes, out);
        case dtype::i16: return detail::numbers_from<std::int16_t>(bytes, out);
        case dtype::u16: return detail::numbers_from<std::uint16_t>(bytes, out);
        case dtype::i32: return detail::numbers_from<std::int32_t>(bytes, out);
        case dtype::u32: return detail::numbers_from<std::uint32_t>(bytes, out);
        case dtype::i64: return detail::numbers_from<std::int64_t>(bytes, out);
        case dtype::u64: return detail::numbers_from<std::uint64_t>(bytes, out);
        case dtype::f8_e5m2: return float8(float8_format::e5m2);
        case dtype::f8_e4m3: return float8(float8_format::e4m3);
        case dtype::f8_e4m3fnuz: return float8(float8_format::e4m3fnuz);
        case dtype::f8_e5m2fnuz: return float8(float8_format::e5m2fnuz);
        case dtype::f8_e8m0: return float8(float8_format::e8m0);
        default: return convert_elements<double>(type, bytes, out);
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_DTYPE_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_GGUF_VALUE_HPP
#define LOWRANK_IO_CONTAINERS_GGUF_VALUE_HPP

/// \file
/// The typed values and the tensor descriptions of a GGUF file.
///
///     const lowrank::gguf_entry alpha{"adapter.lora.alpha", lowrank::gguf_value::of(8.0F)};

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/quant/formats/ggml_type.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The numbers files use.
enum class gguf_type : std::int32_t {
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    boolean = 7,
    string = 8,
    array = 9,
    u64 = 10,
    i64 = 11,
    f64 = 12,
};

/// Bytes of a scalar; 0 for strings, arrays and numbers that name no type.
[[nodiscard]] constexpr std::size_t size_of(gguf_type type) noexcept {
    switch (type) {
        case gguf_type::u8:
        case gguf_type::i8:
        case gguf_type::boolean: return 1;
        case gguf_type::u16:
        case gguf_type::i16: return 2;
        case gguf_type::u32:
        case gguf_type::i32:
        case gguf_type::f32: return 4;
        case gguf_type::u64:
        case gguf_type::i64:
        case gguf_type::f64: return 8;
        default: return 0;
    }
}

/// One value: a scalar in its own bits, a string, or an array of scalars (as bytes) or of strings.
struct gguf_value {
    gguf_type type = gguf_type::u32;
    std::uint64_t bits = 0;  ///< A scalar, in the low bytes.
    std::string text = {};
    gguf_type element = gguf_type::u32;    ///< Of an array.
    std::vector<std::byte> elements = {};  ///< Its scalars, little-endian.
    std::vector<std::string> texts = {};   ///< Its strings.

    [[nodiscard]] static gguf_value of(std::string text) {
        return {.type = gguf_type::string, .text = std::move(text)};
    }
    [[nodiscard]] static gguf_value of(const char* text) { return of(std::string(text)); }
    [[nodiscard]] static gguf_value of(float x) {
        return {.type = gguf_type::f32, .bits = std::bit_cast<std::uint32_t>(x)};
    }
    [[nodiscard]] static gguf_value of(std::uint32_t x) { return {.type = gguf_type::u32, .bits = x}; }
    [[nodiscard]] static gguf_value of(bool x) { return {.type = gguf_type::boolean, .bits = x ? 1U : 0U}; }

    /// An array of u32.
    [[nodiscard]] static gguf_value of(std::span<const std::uint32_t> values) {
        const auto bytes = std::as_bytes(values);
        return {.type = gguf_type::array, .element = gguf_type::u32, .elements = {bytes.begin(), bytes.end()}};
    }

    [[nodiscard]] const std::string* as_string() const noexcept { return type == gguf_type::string ? &text : nullptr; }
    [[nodiscard]] std::optional<float> as_f32() const noexcept {
        return type == gguf_type::f32 ? std::optional(std::bit_cast<float>(static_cast<std::uint32_t>(bits)))
                                      : std::nullopt;
    }
    /// Any unsigned type, or a signed one that is not negative.
    [[nodiscard]] std::optional<std::uint64_t> as_count() const noexcept {
        switch (type) {
            case gguf_type::u8:
            case gguf_type::u16:
            case gguf_type::u32:
            case gguf_type::u64: return bits;
            case gguf_type::i8:
            case gguf_type::i16:
            case gguf_type::i32:
            case gguf_type::i64: {
                const bool negative = (bits >> (8 * size_of(type) - 1) & 1U) != 0;
                return negative ? std::nullopt : std::optional(bits);
            }
            default: return std::nullopt;
        }
    }

    friend bool operator==(const gguf_value&, const gguf_value&) = default;
};

struct gguf_entry {
    std::string key = {};
    gguf_value value = {};

    friend bool operator==(const gguf_entry&, const gguf_entry&) = default;
};

/// A tensor of a file. `ne[0]` runs fastest: a weight of shape [out, in] has ne = {in, out}.
struct gguf_tensor {
    std::string name = {};
    ggml_type type = ggml_type::f32;
    std::vector<std::uint64_t> ne = {};
    std::uint64_t offset = 0;  ///< From the begin of the data.
    std::uint64_t bytes = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_GGUF_VALUE_HPP

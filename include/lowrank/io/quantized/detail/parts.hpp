// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_DETAIL_PARTS_HPP
#define LOWRANK_IO_QUANTIZED_DETAIL_PARTS_HPP

/// \file
/// What schemes of quantization share: the tensors of a weight by their names, numbers out of them, codes of few bits.
///
///     const std::string_view module = detail::without_end(t.name, ".qweight");
///     auto scales = detail::numbers_of(base, *base.find(std::string(module) + ".scales"));

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/quantized/quantized_weight.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

using recognized_weight = result<std::optional<quantized_weight>>;

/// The name without its end, or empty where it ends otherwise.
[[nodiscard]] inline std::string_view without_end(std::string_view name, std::string_view end) noexcept {
    return name.size() > end.size() && name.ends_with(end) ? name.substr(0, name.size() - end.size())
                                                           : std::string_view();
}

[[nodiscard]] inline std::uint64_t elements_of(const tensor_info& t) noexcept {
    return (t.end - t.begin) * 8 / bits_of(t.type);
}

/// All elements as float; bytes of E8M0 scales (a type of its own, or U8 where `is_exponent`) are powers of two.
LOWRANK_INLINE [[nodiscard]] result<std::vector<float>> numbers_of(const checkpoint& base, const tensor_info& t,
                                                                   bool is_exponent = false) {
    if (!is_number(t.type)) {
        return status{errc::unsupported,
                      "tensor " + in_quotes(t.name) + " has type " + std::string(name_of(t.type)) + ", not of numbers"};
    }
    const auto bytes = base.bytes(*base.locate(t.name));
    std::vector<double> wide(static_cast<std::size_t>(elements_of(t)));
    convert_numbers(is_exponent && t.type == dtype::u8 ? dtype::f8_e8m0 : t.type, bytes, wide);
    return std::vector<float>(wide.begin(), wide.end());
}

/// `mismatch`: a tensor of a quantized weight has a shape that does not fit.
LOWRANK_INLINE [[nodiscard]] status wrong_part(const tensor_info& t, std::string_view expected) {
    return {errc::mismatch, "tensor " + in_quotes(t.name) + " has shape " + shape_in_words(t.shape) + " and type " +
                                std::string(name_of(t.type)) + "; expected " + std::string(expected)};
}
/// `mismatch`: a tensor of a quantized weight is missing.
LOWRANK_INLINE [[nodiscard]] status missing_part(const tensor_info& codes, std::string_view name) {
    return {errc::mismatch, "tensor " + in_quotes(codes.name) + " holds codes, but there is no tensor " +
                                in_quotes(name) + " beside it"};
}

/// Adds the parts of `module` that concern activations, which a decoded weight does not need.
LOWRANK_INLINE void add_activation_parts(const checkpoint& base, std::string_view module, quantized_weight& w) {
    for (const char* end : {".input_scale", ".activation_scale", ".input_global_scale", ".qscale_act", ".scale_input",
                            ".input_zero_point"}) {
        if (std::string name = std::string(module) + end; base.find(name) != nullptr) {
            w.parts.push_back(std::move(name));
        }
    }
}

/// Codes of `bits` bits each in words of 32 bits, the first in the low bits; a code may lie in two words.
struct bit_stream {
    const std::byte* words;
    int bits;

    /// The code at a position of a run whose words lie `stride` words apart.
    [[nodiscard]] unsigned at(index position, index stride) const noexcept {
        const auto bit = static_cast<std::uint64_t>(position) * static_cast<std::uint64_t>(bits);
        const auto word = static_cast<index>(bit / 32);
        const auto shift = static_cast<unsigned>(bit % 32);
        std::uint64_t both = load(word * stride);
        if (shift + static_cast<unsigned>(bits) > 32) {
            both |= std::uint64_t{load((word + 1) * stride)} << 32U;
        }
        return static_cast<unsigned>(both >> shift) & ((1U << static_cast<unsigned>(bits)) - 1U);
    }

private:
    [[nodiscard]] std::uint32_t load(index word) const noexcept {
        std::uint32_t x;
        std::memcpy(&x, words + word * 4, sizeof x);
        return x;
    }
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_QUANTIZED_DETAIL_PARTS_HPP

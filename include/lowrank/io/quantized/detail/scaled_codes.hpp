// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_DETAIL_SCALED_CODES_HPP
#define LOWRANK_IO_QUANTIZED_DETAIL_SCALED_CODES_HPP

/// \file
/// Weights whose codes are whole bytes: FP8 and int8, with a scale for the tensor, a row, a group or a block.
///
///     auto w = detail::recognize_scaled_codes(base, config, *base.find("up_proj.weight"));

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/io/quantized/detail/parts.hpp>
#include <lowrank/quant/formats/small_floats.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Which scale is whose: matrices of rows x cols in a stack, blocks of `row_block` x `col_block` of each.
struct scale_grid {
    index rows = 0;
    index row_block = 0;
    index col_block = 0;
    index per_matrix = 0;  ///< Scales of one matrix; 0: all matrices share them.
    index per_row = 0;     ///< Scales along a row.

    [[nodiscard]] std::size_t at(index row, index col) const noexcept {
        return static_cast<std::size_t>(row / rows * per_matrix + row % rows / row_block * per_row + col / col_block);
    }
};

/// The grid that scales of this shape are for. \return nothing if they fit none.
LOWRANK_INLINE [[nodiscard]] std::optional<scale_grid> grid_of(const tensor_info& scales, index matrices, index rows,
                                                               index cols, const std::vector<index>& block_shape) {
    const auto count = static_cast<index>(elements_of(scales));
    const auto up = [](index n, index block) { return (n + block - 1) / block; };
    if (count == 1) {
        return scale_grid{rows, rows, cols, 0, 1};
    }
    if (matrices > 1 && count == matrices) {
        return scale_grid{rows, rows, cols, 1, 1};
    }
    const std::size_t dims = scales.shape.size();
    const index high = dims >= 2 ? static_cast<index>(scales.shape[dims - 2]) : count;
    const index wide = dims >= 2 ? static_cast<index>(scales.shape[dims - 1]) : 1;
    if (high <= 0 || wide <= 0 || high * wide * matrices != count) {
        return std::nullopt;
    }
    index row_block = 0;
    index col_block = 0;
    if (block_shape.size() == 2 && up(rows, block_shape[0]) == high && up(cols, block_shape[1]) == wide) {
        row_block = block_shape[0];
        col_block = block_shape[1];
    } else if (high == rows && cols % wide == 0) {  // by row, or by group of a row
        row_block = 1;
        col_block = cols / wide;
    } else if (up(rows, 128) == high && up(cols, 128) == wide) {
        row_block = 128;
        col_block = 128;
    } else {
        return std::nullopt;
    }
    return scale_grid{rows, row_block, col_block, high * wide, wide};
}

[[nodiscard]] inline std::optional<float8_format> float8_format_of(dtype type) noexcept {
    switch (type) {
        case dtype::f8_e4m3: return float8_format::e4m3;
        case dtype::f8_e5m2: return float8_format::e5m2;
        case dtype::f8_e4m3fnuz: return float8_format::e4m3fnuz;
        case dtype::f8_e5m2fnuz: return float8_format::e5m2fnuz;
        default: return std::nullopt;
    }
}

/// The numbers of all codes of one byte, by type; nothing for a type that is no code.
LOWRANK_INLINE [[nodiscard]] std::optional<std::array<float, 256>> byte_values(dtype type) {
    if (const auto format = float8_format_of(type)) {
        return float8_values(*format);
    }
    if (type != dtype::i8) {
        return std::nullopt;
    }
    std::array<float, 256> values{};
    for (std::size_t code = 0; code < values.size(); ++code) {
        values[code] = static_cast<float>(static_cast<std::int8_t>(code));
    }
    return values;
}

/// Appends a number in a float type, the next one above if `x` lies between two.
LOWRANK_INLINE void append_rounded_up(dtype type, float x, std::vector<std::byte>& out) {
    const auto append = [&](auto y) {
        const auto bytes = std::as_bytes(std::span(&y, 1));
        out.insert(out.end(), bytes.begin(), bytes.end());
    };
    const auto up = [x](auto y, auto bits) {  // of a positive number
        using T = decltype(y);
        return static_cast<float>(y) < x
                   ? std::bit_cast<T>(static_cast<decltype(bits)>(std::bit_cast<decltype(bits)>(y) + 1))
                   : y;
    };
    switch (type) {
        case dtype::f32: return append(x);
        case dtype::f16: return append(up(half(x), std::uint16_t{}));
        default: return append(up(bfloat16(x), std::uint16_t{}));
    }
}

/// Codes of the nearest numbers to x / scale; x becomes what they stand for. A scale grows where codes would not reach its
/// elements; without scales (`scale_type` is empty) they end at the largest number.
LOWRANK_INLINE [[nodiscard]] encoded_weight encode_float8(float8_format format, float* x, index rows, index cols,
                                                          const scale_grid& grid, std::vector<float> scales,
                                                          std::optional<dtype> scale_type) {
    const float8_encoder encoder(format);
    encoded_weight out;
    if (scale_type) {
        std::vector<float> largest(scales.size(), 0.0F);
        for (index r = 0; r < rows; ++r) {
            for (index c = 0; c < cols; ++c) {
                const float size = std::abs(x[r * cols + c]);
                float& most = largest[grid.at(r, c)];
                most = std::isfinite(size) ? std::max(most, size) : most;
            }
        }
        for (std::size_t i = 0; i < scales.size(); ++i) {
            if (largest[i] > encoder.largest() * std::abs(scales[i])) {
                std::vector<std::byte> grown;
                append_rounded_up(*scale_type, largest[i] / encoder.largest(), grown);
                convert_elements<float>(*scale_type, grown, {&scales[i], 1});
                out.scales.insert(out.scales.end(), grown.begin(), grown.end());
            } else {
                append_rounded_up(*scale_type, scales[i], out.scales);  // as it was
            }
        }
    }
    out.codes.resize(static_cast<std::size_t>(rows * cols));
    for (index r = 0; r < rows; ++r) {
        for (index c = 0; c < cols; ++c) {
            const float scale = scales[grid.at(r, c)];
            float& value = x[r * cols + c];
            const std::uint8_t code = encoder(scale != 0 ? value / scale : value);
            out.codes[static_cast<std::size_t>(r * cols + c)] = static_cast<std::byte>(code);
            value = encoder.values()[code] * scale;
        }
    }
    return out;
}

/// The first of the tensors that may hold the scales of codes, or null.
LOWRANK_INLINE [[nodiscard]] const tensor_info* scales_of_codes(const checkpoint& base, const std::string& codes) {
    for (const char* end : {"_scale_inv", "_scales_inv", "_scale"}) {
        if (const tensor_info* t = base.find(codes + end)) {
            return t;
        }
    }
    if (const auto module = std::string(without_end(codes, ".weight")); !module.empty()) {
        for (const char* end : {".scale_weight", ".qscale_weight"}) {
            if (const tensor_info* t = base.find(module + end)) {
                return t;
            }
        }
    }
    return nullptr;
}

/// bitsandbytes' int8: rows scaled by their largest magnitude over 127.
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_int8_rows(const checkpoint& base, const quantization_config&,
                                                                   const tensor_info& t) {
    const std::string module(without_end(t.name, ".weight"));
    const tensor_info* scb = module.empty() || t.type != dtype::i8 ? nullptr : base.find(module + ".SCB");
    if (scb == nullptr) {
        return std::optional<quantized_weight>();
    }
    if (t.shape.size() != 2) {
        return wrong_part(t, "a matrix");
    }
    if (elements_of(*scb) != t.shape[0]) {
        return wrong_part(*scb, "one number per row of " + shape_in_words(t.shape));
    }
    const auto scales = numbers_of(base, *scb);
    if (!scales) {
        return scales.error();
    }
    quantized_weight w{.name = t.name, .scheme = "bitsandbytes 8-bit", .shape = t.shape, .parts = {t.name, scb->name}};
    if (const tensor_info* layout = base.find(module + ".weight_format")) {
        const auto value = numbers_of(base, *layout);
        if (!value || value->size() != 1 || value->front() != 0) {
            return status{errc::unsupported,
                          "tensor " + in_quotes(layout->name) +
                              " says that the codes are laid out for one kind of processor; save the "
                              "model again with rows in their order (weight_format 0)"};
        }
        w.parts.push_back(layout->name);
    }
    w.decode = [bytes = base.bytes(*base.locate(t.name)), base, scales = *scales, cols = w.cols()](
                   index first, index count, float* out) {
        for (index r = first; r < first + count; ++r) {
            const float scale = scales[static_cast<std::size_t>(r)];
            for (index c = 0; c < cols; ++c) {
                *out++ = static_cast<float>(static_cast<std::int8_t>(bytes[static_cast<std::size_t>(r * cols + c)])) *
                         scale * (1.0F / 127.0F);
            }
        }
    };
    return std::optional(std::move(w));
}

/// FP8 and int8 with scales, and FP8 without any, which stands for its own numbers.
LOWRANK_INLINE [[nodiscard]] recognized_weight recognize_scaled_codes(const checkpoint& base,
                                                                      const quantization_config& config,
                                                                      const tensor_info& t) {
    const auto values = byte_values(t.type);
    const tensor_info* scale = scales_of_codes(base, t.name);
    if (!values || t.shape.size() < 2 || t.begin == t.end || (scale == nullptr && t.type == dtype::i8) ||
        t.name.ends_with("_scale") || t.name.ends_with("_zero_point")) {
        return std::optional<quantized_weight>();
    }
    const auto cols = static_cast<index>(t.shape.back());
    const auto rows = static_cast<index>(t.shape[t.shape.size() - 2]);
    const auto matrices = static_cast<index>(elements_of(t)) / (rows * cols);
    quantized_weight w{.name = t.name, .shape = t.shape, .parts = {t.name}};
    w.scheme = std::string(name_of(t.type)) + (scale == nullptr ? " without scales" : " with scales");
    std::vector<float> scales{1.0F};
    std::vector<float> zeros;
    scale_grid grid{rows, rows, cols, 0, 1};
    if (scale != nullptr) {
        const auto fits = grid_of(*scale, matrices, rows, cols, config.block_shape);
        if (!fits) {
            return wrong_part(*scale, "one scale, one per row, or one per block of " + shape_in_words(t.shape));
        }
        grid = *fits;
        w.parts.push_back(scale->name);
        auto numbers = numbers_of(base, *scale, true);
        if (!numbers) {
            return numbers.error();
        }
        scales = std::move(*numbers);
        if (const tensor_info* zero = base.find(t.name + "_zero_point")) {
            auto of_zeros = numbers_of(base, *zero);
            if (!of_zeros || of_zeros->size() != scales.size()) {
                return wrong_part(*zero, "as many numbers as " + in_quotes(scale->name));
            }
            zeros = std::move(*of_zeros);
            w.parts.push_back(zero->name);
        }
    }
    if (const std::string_view module = without_end(t.name, ".weight"); !module.empty()) {
        add_activation_parts(base, module, w);
    }
    const bool is_writable = t.type != dtype::i8 && zeros.empty() &&
                             (scale == nullptr || (is_real(scale->type) && scale->type != dtype::f64));
    if (is_writable) {
        w.scales = scale == nullptr ? "" : scale->name;
        w.encode = [format = *float8_format_of(t.type), scales, grid, rows = w.rows(), cols,
                    type = scale == nullptr ? std::nullopt : std::optional(scale->type)](float* x) {
            return encode_float8(format, x, rows, cols, grid, scales, type);
        };
    }
    w.decode = [bytes = base.bytes(*base.locate(t.name)), base, values = *values, scales = std::move(scales),
                zeros = std::move(zeros), grid, cols](index first, index count, float* out) {
        for (index r = first; r < first + count; ++r) {
            for (index c = 0; c < cols;) {
                const std::size_t at = grid.at(r, c);
                const float zero = zeros.empty() ? 0.0F : zeros[at];
                const index end = std::min(cols, (c / grid.col_block + 1) * grid.col_block);
                for (; c < end; ++c) {
                    const auto code = static_cast<std::size_t>(bytes[static_cast<std::size_t>(r * cols + c)]);
                    *out++ = (values[code] - zero) * scales[at];
                }
            }
        }
    };
    return std::optional(std::move(w));
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_QUANTIZED_DETAIL_SCALED_CODES_HPP

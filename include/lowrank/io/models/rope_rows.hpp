// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_ROPE_ROWS_HPP
#define LOWRANK_IO_MODELS_ROPE_ROWS_HPP

/// \file
/// The two orders of the rows of q and k under rotary positions: halves (transformers) and pairs (GGUF, llama2.c).
///
///     const auto pairs = lowrank::rope_rows_to_gguf(w, 32);           // a weight, lora_B, bias or DoRA magnitude
///     const auto halves = lowrank::rope_rows_to_hf(pairs, 32);
///     lowrank::any_adapter<float> a = adapter;                                        // of any kind
///     lowrank::throw_if_failed(a.permute_rows(lowrank::rope_row_order(a.rows(), 32, true)));
///
/// Row h d + p d/2 + i becomes row h d + 2 i + p, where d is the size of a head. As in ggml-org/llama.cpp, its converter
/// for LlamaForCausalLM.

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Which old row becomes row i, for `any_adapter::permute_rows`. \pre `rows` is a multiple of 2 heads.
[[nodiscard]] inline std::vector<index> rope_row_order(index rows, index heads, bool to_gguf) {
    detail::expects(heads > 0 && rows % (2 * heads) == 0, "rope rows: the rows must be a multiple of twice the heads");
    std::vector<index> order(static_cast<std::size_t>(rows));
    const index size = rows / heads;
    for (index row = 0; row < rows; ++row) {
        const index in_head = row % size;
        const index other = row - in_head + 2 * (in_head % (size / 2)) + in_head / (size / 2);
        order[static_cast<std::size_t>(to_gguf ? other : row)] = to_gguf ? row : other;
    }
    return order;
}

/// Whole rows, as bytes, in the other order. \pre `rows` is a multiple of 2 heads and divides the bytes.
[[nodiscard]] inline std::vector<std::byte> rope_rows(std::span<const std::byte> bytes, index rows, index heads,
                                                      bool to_gguf) {
    const std::vector<index> order = rope_row_order(rows, heads, to_gguf);
    std::vector<std::byte> out(bytes.size());
    const std::size_t width = rows == 0 ? 0 : bytes.size() / static_cast<std::size_t>(rows);
    for (std::size_t row = 0; width != 0 && row < order.size(); ++row) {
        std::memcpy(out.data() + row * width, bytes.data() + static_cast<std::size_t>(order[row]) * width, width);
    }
    return out;
}

namespace detail {

template <class D>
[[nodiscard]] row_matrix<typename D::Scalar> with_rope_rows(const D& w, index heads, bool to_gguf) {
    row_matrix<typename D::Scalar> out = w;
    const std::span<const typename D::Scalar> values(out.data(), static_cast<std::size_t>(out.size()));
    const auto bytes = rope_rows(std::as_bytes(values), out.rows(), heads, to_gguf);
    if (!bytes.empty()) {
        std::memcpy(out.data(), bytes.data(), bytes.size());
    }
    return out;
}

}  // namespace detail

/// Rows from halves to pairs. \pre rows is a multiple of 2 heads.
template <detail::eigen_dense D>
[[nodiscard]] auto rope_rows_to_gguf(const D& w, index heads) {
    return detail::with_rope_rows(w, heads, true);
}
/// Rows from pairs to halves. \pre rows is a multiple of 2 heads.
template <detail::eigen_dense D>
[[nodiscard]] auto rope_rows_to_hf(const D& w, index heads) {
    return detail::with_rope_rows(w, heads, false);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_ROPE_ROWS_HPP

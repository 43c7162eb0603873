// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_ROWS_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_ROWS_HPP

/// \file
/// Weights of a checkpoint that an adapter turns or scales row by row (OFT, BOFT, HRA, HiRA, MiSS of the form "bat"),
/// written a tile at a time.
///
///     auto weight = detail::write_merged_rows(out, dtype::bf16, {file.bytes(tensor), &file}, change, {.exec = exec});

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/checkpoints/detail/merge_tiles.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The transform of rows first, first + 1, ... of a weight, for a tile that holds these alone.
struct rows_after {
    const any_row_transform& f;
    index first = 0;

    [[nodiscard]] bool fits(index, index) const { return true; }
    void forward(index i, column_view<double> rows, workspace& ws) const { f.forward(first + i, rows, ws); }
    void backward(index i, column_view<double> rows, workspace& ws) const { f.backward(first + i, rows, ws); }
};

/// \pre `change.rows` is set. \cost A tile in double beside the weight's; the whole weight where it is stored in x out.
template <storage T>
[[nodiscard]] result<merged_weight> write_merged_rows_as(const byte_sink& out, const stored_bytes& from,
                                                         const stored_change& change, const tile_options& opt) {
    const index all_rows = change.left.rows();
    const index cols = change.right.cols();
    const auto row_bytes = std::max<std::size_t>(1, static_cast<std::size_t>(cols) * sizeof(T));
    if (!change.rows->fits(change.acts_on_transpose ? cols : all_rows, change.acts_on_transpose ? all_rows : cols)) {
        return status{errc::mismatch, "the adapter's module is for a weight of another shape"};
    }
    const index step = change.acts_on_transpose
                           ? std::max<index>(all_rows, 1)
                           : static_cast<index>(std::max<std::size_t>(transformed_rows, opt.bytes / row_bytes / 4));
    audit_sum audit;
    double receipt_bits = 0;
    for (index first = 0; first < all_rows; first += step) {
        const index count = std::min(step, all_rows - first);
        row_matrix<T> tile(count, cols);
        const auto stored =
            from.bytes.subspan(static_cast<std::size_t>(first) * static_cast<std::size_t>(cols) * sizeof(T),
                               static_cast<std::size_t>(tile.size()) * sizeof(T));
        if (!stored.empty()) {
            std::memcpy(tile.data(), stored.data(), stored.size());
        }
        from.release(stored);
        const row_matrix<T> before = opt.check ? tile : row_matrix<T>();
        const rows_after f{*change.rows, first};
        const transformed_merge_options how{.transposed = change.acts_on_transpose, .exec = opt.exec};
        const auto receipt = merge_transformed(weight_view<T>(tile), f, how);
        if (!receipt) {
            return receipt.error();
        }
        if (opt.check) {
            row_matrix<T> back = tile;
            status why = unmerge_transformed(weight_view<T>(back), *receipt, f, how);
            if (why && back.size() != 0 &&
                std::memcmp(back.data(), before.data(), static_cast<std::size_t>(count) * row_bytes) != 0) {
                why = {errc::mismatch, "unmerging did not give back the bits of before"};
            }
            if (!why) {
                return why;
            }
            receipt_bits += receipt->bits_per_weight() * static_cast<double>(tile.size());
        }
        audit.add(receipt->audit, first);
        if (status why = out(std::as_bytes(std::span(tile.data(), static_cast<std::size_t>(tile.size())))); !why) {
            return why;
        }
    }
    const auto entries = static_cast<double>(std::max<std::uint64_t>(audit.total().entries, 1));
    return merged_weight{audit.total(), dtype_of<T>, 0, receipt_bits / entries};
}

LOWRANK_INLINE [[nodiscard]] result<merged_weight> write_merged_rows(const byte_sink& out, dtype type,
                                                                     const stored_bytes& from,
                                                                     const stored_change& change,
                                                                     const tile_options& opt) {
    switch (type) {
        case dtype::f64: return write_merged_rows_as<double>(out, from, change, opt);
        case dtype::f32: return write_merged_rows_as<float>(out, from, change, opt);
        case dtype::f16: return write_merged_rows_as<half>(out, from, change, opt);
        default: return write_merged_rows_as<bfloat16>(out, from, change, opt);
    }
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_ROWS_HPP

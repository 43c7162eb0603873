// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_TILES_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_TILES_HPP

/// \file
/// One changed weight from file to file: some tiles are merged while those before them are written.
///
///     const detail::byte_sink out = [&](std::span<const std::byte> bytes) { return file.write(bytes); };
///     auto weight = detail::write_merged(out, dtype::bf16, {file.bytes(tensor), &file}, change, {.exec = exec});

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/checkpoints/merge_types.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/lora/merge/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Takes the bytes of a tensor in their order.
using byte_sink = std::function<status(std::span<const std::byte>)>;

/// The bytes of a tensor that are read from front to back. Their file, where they lie in one, learns what is needed next
/// and what no more.
struct stored_bytes {
    std::span<const std::byte> bytes = {};
    const safetensors_file* file = nullptr;

    void will_need(std::span<const std::byte> next) const {
        if (file != nullptr) {
            file->will_need(next);
        }
    }
    void release(std::span<const std::byte> done) const {
        if (file != nullptr) {
            file->release(done);
        }
    }
};

struct tile_options {
    std::size_t bytes = std::size_t{32} << 20;  ///< In memory at a time, half of them on their way to the disk.
    bool check = false;
    const executor& exec;
};

/// Adds up the audits of the tiles of one weight, in their order.
class audit_sum {
public:
    void add(const merge_audit& tile, index first_row) {
        sum_.entries += tile.entries;
        sum_.touched += tile.touched;
        sum_.unchanged += tile.unchanged;
        error_ += std::pow(tile.relative_error * tile.change_norm, 2);
        norm_ += tile.change_norm * tile.change_norm;
        if (tile.worst_error > sum_.worst_error) {
            sum_.worst_error = tile.worst_error;
            sum_.worst_row = first_row + tile.worst_row;
            sum_.worst_col = tile.worst_col;
        }
    }
    [[nodiscard]] merge_audit total() const {
        merge_audit out = sum_;
        out.change_norm = std::sqrt(norm_);
        out.relative_error = norm_ > 0 ? std::sqrt(error_ / norm_) : 0;
        return out;
    }

private:
    merge_audit sum_ = {};
    double error_ = 0;
    double norm_ = 0;
};

template <storage T>
class tile_merger {
    using S = compute_t<T>;

public:
    struct tile {
        index first = 0;
        index rows = 0;
        row_matrix<T> values = {};
        merge_audit audit = {};
        double receipt_bits = 0;
        status why = {};
    };

    tile_merger(std::span<const std::byte> bytes, const stored_change& change, bool check)
        : bytes_(bytes),
          left_(change.left),
          right_(change.right.template cast<S>()),
          row_scale_(change.row_scale.template cast<S>()),
          column_scale_(change.column_scale.template cast<S>()),
          check_(check) {}

    [[nodiscard]] std::span<const std::byte> stored(index first, index rows) const {
        const auto row_bytes = static_cast<std::size_t>(right_.cols()) * sizeof(T);
        return bytes_.subspan(static_cast<std::size_t>(first) * row_bytes, static_cast<std::size_t>(rows) * row_bytes);
    }

    void merge(tile& t) const {
        const auto old = stored(t.first, t.rows);
        t.values.resize(t.rows, right_.cols());
        if (!old.empty()) {
            std::memcpy(t.values.data(), old.data(), old.size());
        }
        const low_rank<S> part{.left = left_.middleRows(t.first, t.rows).template cast<S>(), .right = right_};
        merge_options<S> merging;
        if (row_scale_.size() != 0) {
            merging.row_scale = std::span(row_scale_.data() + t.first, static_cast<std::size_t>(t.rows));
        }
        merging.column_scale = std::span(column_scale_.data(), static_cast<std::size_t>(column_scale_.size()));
        if (!check_) {
            const auto audit = merge_copy(weight_view<T>(t.values), part, merging);
            audit ? void(t.audit = *audit) : void(t.why = audit.error());
            return;
        }
        const auto receipt = lowrank::merge(weight_view<T>(t.values), part, merging);
        if (!receipt) {
            t.why = receipt.error();
            return;
        }
        t.audit = receipt->audit;
        t.receipt_bits = receipt->bits_per_weight() * static_cast<double>(t.values.size());
        row_matrix<T> back = t.values;
        t.why = unmerge(weight_view<T>(back), *receipt, part, merging);
        if (t.why && !old.empty() && std::memcmp(back.data(), old.data(), old.size()) != 0) {
            t.why = {errc::mismatch, "unmerging did not give back the bits of before"};
        }
    }

private:
    std::span<const std::byte> bytes_;
    const matrix<float>& left_;
    matrix<S> right_;
    vector<S> row_scale_;
    vector<S> column_scale_;
    bool check_;
};

template <storage T>
[[nodiscard]] result<merged_weight> write_merged_as(const byte_sink& out, const stored_bytes& from,
                                                    stored_change change, const tile_options& opt) {
    resolve_magnitude<T>(from.bytes, change);
    const tile_merger<T> work(from.bytes, change, opt.check);
    using tile = typename tile_merger<T>::tile;
    constexpr std::size_t tiles_at_once = 8;  // each of them may run on a thread
    const index all_rows = change.left.rows();
    const auto row_bytes = std::max<std::size_t>(1, static_cast<std::size_t>(change.right.cols()) * sizeof(T));
    const auto rows_of_tile = static_cast<index>(std::max<std::size_t>(1, opt.bytes / (2 * tiles_at_once) / row_bytes));
    std::vector<tile> merged;
    std::vector<tile> previous;
    audit_sum audit;
    double receipt_bits = 0;
    status why;
    for (index first = 0; first < all_rows || !previous.empty();) {
        const index begin = first;
        for (merged.clear(); merged.size() < tiles_at_once && first < all_rows; first += merged.back().rows) {
            merged.push_back({.first = first, .rows = std::min(rows_of_tile, all_rows - first)});
        }
        const index ahead = std::min(first + (first - begin), all_rows);
        from.will_need(work.stored(first, ahead - first));
        parallel_for(opt.exec, 1 + static_cast<index>(merged.size()), [&](index i) {
            if (i != 0) {
                tile& mine = merged[static_cast<std::size_t>(i - 1)];
                work.merge(mine);
                from.release(work.stored(mine.first, mine.rows));
                return;
            }
            for (const tile& ready : previous) {
                if (why) {
                    why = out(std::as_bytes(
                        std::span<const T>(ready.values.data(), static_cast<std::size_t>(ready.values.size()))));
                }
            }
        });
        for (const tile& mine : merged) {
            if (why && !mine.why) {
                why = mine.why;
            }
            audit.add(mine.audit, mine.first);
            receipt_bits += mine.receipt_bits;
        }
        if (!why) {
            return why;
        }
        std::swap(merged, previous);
    }
    const merge_audit total = audit.total();
    return merged_weight{total, dtype_of<T>, change.right.rows(),
                         receipt_bits / static_cast<double>(std::max<std::uint64_t>(total.entries, 1))};
}

/// Gives the changed elements of a tensor of real numbers to `out`, a tile at a time and each after it was read.
LOWRANK_INLINE [[nodiscard]] result<merged_weight> write_merged(const byte_sink& out, dtype type,
                                                                const stored_bytes& from, stored_change change,
                                                                const tile_options& opt) {
    switch (type) {
        case dtype::f64: return write_merged_as<double>(out, from, std::move(change), opt);
        case dtype::f32: return write_merged_as<float>(out, from, std::move(change), opt);
        case dtype::f16: return write_merged_as<half>(out, from, std::move(change), opt);
        default: return write_merged_as<bfloat16>(out, from, std::move(change), opt);
    }
}

/// Writes bytes of a file as they are, a few megabytes in memory at a time.
LOWRANK_INLINE [[nodiscard]] status write_unchanged(const byte_sink& out, const safetensors_file& file,
                                                    std::span<const std::byte> bytes) {
    constexpr std::size_t piece = std::size_t{8} << 20;
    for (auto left = bytes; !left.empty(); left = left.subspan(std::min(piece, left.size()))) {
        const auto now = left.first(std::min(piece, left.size()));
        file.will_need(left.subspan(now.size()).first(std::min(piece, left.size() - now.size())));
        if (status why = out(now); !why) {
            return why;
        }
        file.release(now);
    }
    return {};
}
LOWRANK_INLINE [[nodiscard]] status write_unchanged(const byte_sink& out, const safetensors_file& file,
                                                    const tensor_info& t) {
    return write_unchanged(out, file, file.bytes(t));
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_TILES_HPP

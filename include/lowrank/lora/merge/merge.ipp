// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_IPP
#define LOWRANK_LORA_MERGE_MERGE_IPP

#include <lowrank/lora/merge/merge.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/checksum.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/lora/merge/detail/delta_tile.hpp>
#include <lowrank/lora/merge/detail/merge_row.hpp>
#include <lowrank/lora/merge/detail/ulp_code.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Columns merged at a time. Part of the receipt's format.
inline constexpr index merge_block = 512;

/// One block of columns of a merge: its merged rows so far, what they cost, how to take them back.
struct merge_block_state {
    std::vector<std::uint8_t> code = {};
    index rows_done = 0;
    bool failed = false;
    index bad_row = 0;
    index bad_col = 0;
    merge_sums sums = {};
    index worst_row = 0;
    index worst_col = 0;
};

template <storage T>
class merger {
    using S = compute_t<T>;

public:
    merger(weight_view<T> w, const low_rank<S>& change, const merge_options<S>& options)
        : w_(w), data_(w.data()), change_(change), options_(options) {}

    [[nodiscard]] index blocks() const { return (w_.cols() + merge_block - 1) / merge_block; }

    /// Merges block `b` row by row; stops before the first row with a value that is not finite. Without `undoable` no
    /// code is made.
    template <bool undoable>
    void merge(index b, merge_block_state& state) const {
        const index first = b * merge_block;
        const index count = std::min(merge_block, w_.cols() - first);
        delta_tiles<S> tiles(change_);
        tiles.select_columns(first, count);
        ulp_encoder code;
        merge_row<T> row(count);
        for (index i = 0; i < w_.rows() && !state.failed; i += tiles.rows_at_once) {
            const index rows = std::min(tiles.rows_at_once, w_.rows() - i);
            const double* d = tiles.rows(i, rows);
            for (index r = i; r < i + rows; ++r, d += tiles.stride()) {
                T* w = at(r, first);
                const double worst = state.sums.worst;
                if (!row.template compute<undoable>(w, d, scales(r, first), state.sums)) {
                    state.failed = true;
                    state.bad_row = r;
                    state.bad_col = first + row.first_bad();
                    break;
                }
                if (state.sums.worst > worst) {
                    state.worst_row = r;
                    state.worst_col = first + state.sums.worst_at;
                }
                if constexpr (undoable) {
                    row.commit(w, static_cast<std::uint64_t>(r * count), code);
                } else {
                    row.commit(w);
                }
                state.rows_done = r + 1;
            }
        }
        if constexpr (undoable) {
            state.code = code.finish(static_cast<std::uint64_t>(state.rows_done * count));
        }
    }

    /// Takes back the first `rows_done` rows of block `b`.
    void unmerge(index b, index rows_done, const std::vector<std::uint8_t>& code) const {
        const index first = b * merge_block;
        const index count = std::min(merge_block, w_.cols() - first);
        delta_tiles<S> tiles(change_);
        tiles.select_columns(first, count);
        ulp_decoder next(code, static_cast<std::uint64_t>(rows_done * count));
        const merge_row<T> row(count);
        for (index i = 0; i < rows_done; i += tiles.rows_at_once) {
            const index rows = std::min(tiles.rows_at_once, rows_done - i);
            const double* d = tiles.rows(i, rows);
            for (index r = i; r < i + rows; ++r, d += tiles.stride()) {
                T* w = at(r, first);
                row.estimate(w, d, scales(r, first));
                const auto start = static_cast<std::uint64_t>(r * count);
                for (; next.position() < start + static_cast<std::uint64_t>(count); next.next()) {
                    T& value = w[next.position() - start];
                    value = ulp_shift(value, next.correction());
                }
            }
        }
    }

    [[nodiscard]] std::uint64_t weight_checksum() const {
        std::uint64_t sum = 1;
        for (index i = 0; i < w_.rows(); ++i) {
            sum = checksum(w_.data() + i * w_.outerStride(), static_cast<std::size_t>(w_.cols()) * sizeof(T), sum);
        }
        return sum;
    }

    /// Of the factors, the scales, and a few computed entries, which differ where the arithmetic does.
    [[nodiscard]] std::uint64_t change_checksum() const {
        const auto all = [](const auto& x, std::uint64_t sum) {
            return checksum(x.data(), static_cast<std::size_t>(x.size()) * sizeof(S), sum);
        };
        std::uint64_t sum =
            all(options_.column_scale, all(options_.row_scale, all(change_.right, all(change_.left, 2))));
        if (w_.size() > 0) {
            delta_tiles<S> tiles(change_);
            const index count = std::min<index>(64, w_.cols());
            tiles.select_columns(0, count);
            const index rows = std::min(tiles.rows_at_once, w_.rows());
            const double* d = tiles.rows(0, rows);
            for (index r = 0; r < rows; ++r) {
                sum = checksum(d + r * tiles.stride(), static_cast<std::size_t>(count) * sizeof(double), sum);
            }
        }
        return sum;
    }

private:
    [[nodiscard]] merge_scales<S> scales(index i, index first) const {
        merge_scales<S> out;
        if (!options_.row_scale.empty()) {
            out.row = static_cast<double>(options_.row_scale[static_cast<std::size_t>(i)]);
            out.any = true;
        }
        if (!options_.column_scale.empty()) {
            out.columns = options_.column_scale.data() + first;
            out.any = true;
        }
        return out;
    }
    [[nodiscard]] T* at(index i, index first) const { return data_ + i * w_.outerStride() + first; }

    weight_view<T> w_;
    T* data_;
    const low_rank<S>& change_;
    const merge_options<S>& options_;
};

template <storage T>
void check_merge(const char* function, const weight_view<T>& w, const low_rank<compute_t<T>>& change,
                 const merge_options<compute_t<T>>& options) {
    expects(change.left.cols() == change.right.rows(), "merge: the factors must share their inner dimension");
    expects_shape(function, "change", change.rows(), change.cols(), w.rows(), w.cols());
    expects(options.row_scale.empty() || static_cast<index>(options.row_scale.size()) == w.rows(),
            "merge: row_scale must be empty or have one entry per row");
    expects(options.column_scale.empty() || static_cast<index>(options.column_scale.size()) == w.cols(),
            "merge: column_scale must be empty or have one entry per column");
}

/// The audit of all blocks.
LOWRANK_INLINE merge_audit audit_of(const std::vector<merge_block_state>& states, std::uint64_t entries) {
    merge_audit audit{.entries = entries};
    double change_norm2 = 0;
    double error_norm2 = 0;
    for (const merge_block_state& state : states) {
        const merge_sums& sums = state.sums;
        for (int lane = 0; lane < merge_sums::lanes; ++lane) {
            audit.touched += sums.touched[lane];
            audit.unchanged += sums.unchanged[lane];
            change_norm2 += sums.change_norm2[lane];
            error_norm2 += sums.error_norm2[lane];
        }
        if (sums.worst > audit.worst_error) {
            audit.worst_error = sums.worst;
            audit.worst_row = state.worst_row;
            audit.worst_col = state.worst_col;
        }
    }
    audit.change_norm = std::sqrt(change_norm2);
    audit.relative_error = change_norm2 > 0 ? std::sqrt(error_norm2 / change_norm2) : 0.0;
    return audit;
}

/// Merges every block into `states`. \return `non_finite` with where; then `states` say how far each block came.
template <bool undoable, storage T>
status merge_blocks(const merger<T>& work, const low_rank<compute_t<T>>& change,
                    const merge_options<compute_t<T>>& options, std::vector<merge_block_state>& states) {
    const auto finite_scale = [](auto scale) { return all_finite(scale.data(), static_cast<index>(scale.size())); };
    if (!all_finite(change.left) || !all_finite(change.right) || !finite_scale(options.row_scale) ||
        !finite_scale(options.column_scale)) {
        return {errc::non_finite, "merge: the change holds NaN or infinity; the weight is as it was"};
    }
    states.resize(static_cast<std::size_t>(work.blocks()));
    parallel_for(options.exec, work.blocks(),
                 [&](index b) { work.template merge<undoable>(b, states[static_cast<std::size_t>(b)]); });
    const auto bad = std::find_if(states.begin(), states.end(), [](const auto& s) { return s.failed; });
    if (bad == states.end()) {
        return {};
    }
    return {errc::non_finite, "merge: entry (" + std::to_string(bad->bad_row) + ", " + std::to_string(bad->bad_col) +
                                  ") of the weight is or would become NaN or infinite; the weight is as it was. Check "
                                  "the adapter's scale, or store the weight in a type with more range"};
}

template <storage T>
result<merge_audit> merge_copy(weight_view<T> w, const low_rank<compute_t<T>>& change,
                               const merge_options<compute_t<T>>& options) {
    check_merge("merge", w, change, options);
    std::vector<merge_block_state> states;
    if (status why = merge_blocks<false>(merger<T>(w, change, options), change, options, states); !why) {
        return why;
    }
    return audit_of(states, static_cast<std::uint64_t>(w.size()));
}

LOWRANK_BODY std::uint64_t code_checksum(const std::vector<std::vector<std::uint8_t>>& corrections) {
    std::uint64_t sum = 3;
    for (const auto& code : corrections) {
        sum = checksum(code.data(), code.size(), sum);
    }
    return sum;
}

}  // namespace detail

template <storage T>
result<merge_receipt> merge(weight_view<T> w, const low_rank<compute_t<T>>& change,
                            const merge_options<compute_t<T>>& options) {
    detail::check_merge("merge", w, change, options);
    const detail::merger<T> work(w, change, options);
    std::vector<detail::merge_block_state> states;
    if (status why = detail::merge_blocks<true>(work, change, options, states); !why) {
        parallel_for(options.exec, static_cast<index>(states.size()), [&](index b) {
            const auto& state = states[static_cast<std::size_t>(b)];
            work.unmerge(b, state.rows_done, state.code);
        });
        return why;
    }
    merge_receipt receipt{
        .audit = detail::audit_of(states, static_cast<std::uint64_t>(w.size())), .rows = w.rows(), .cols = w.cols()};
    for (auto& state : states) {
        receipt.corrections.push_back(std::move(state.code));
    }
    receipt.merged_checksum = work.weight_checksum();
    receipt.change_checksum = work.change_checksum();
    receipt.code_checksum = detail::code_checksum(receipt.corrections);
    return receipt;
}

template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt, const low_rank<compute_t<T>>& change,
               const merge_options<compute_t<T>>& options) {
    detail::check_merge("unmerge", w, change, options);
    const detail::merger<T> work(w, change, options);
    if (receipt.rows != w.rows() || receipt.cols != w.cols() ||
        static_cast<index>(receipt.corrections.size()) != work.blocks() ||
        receipt.code_checksum != detail::code_checksum(receipt.corrections)) {
        return {errc::mismatch, "unmerge: the receipt is damaged or belongs to a weight of another shape"};
    }
    if (receipt.change_checksum != work.change_checksum()) {
        return {errc::mismatch, "unmerge: this is not the change that was merged; pass the same factors and scales"};
    }
    if (receipt.merged_checksum != work.weight_checksum()) {
        return {errc::mismatch,
                "unmerge: the weight is not as that merge left it; undo what came after it first, latest first"};
    }
    parallel_for(options.exec, work.blocks(),
                 [&](index b) { work.unmerge(b, w.rows(), receipt.corrections[static_cast<std::size_t>(b)]); });
    return {};
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_MERGE_OF(T)                                                                           \
    template result<merge_receipt> merge<T>(weight_view<T>, const low_rank<compute_t<T>>&,            \
                                            const merge_options<compute_t<T>>&);                      \
    template status unmerge<T>(weight_view<T>, const merge_receipt&, const low_rank<compute_t<T>>&,   \
                               const merge_options<compute_t<T>>&);                                   \
    template result<merge_audit> detail::merge_copy<T>(weight_view<T>, const low_rank<compute_t<T>>&, \
                                                       const merge_options<compute_t<T>>&);
LOWRANK_MERGE_OF(float)
LOWRANK_MERGE_OF(double)
LOWRANK_MERGE_OF(half)
LOWRANK_MERGE_OF(bfloat16)
#undef LOWRANK_MERGE_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_MERGE_IPP

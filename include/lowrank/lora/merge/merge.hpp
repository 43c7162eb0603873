// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_HPP
#define LOWRANK_LORA_MERGE_MERGE_HPP

/// \file
/// Merge a low-rank change into a weight in place, and undo it bit for bit.
///
///     auto receipt = lowrank::merge(lowrank::weight_view<float>(w), adapter.delta());
///     if (!receipt) return log(receipt.error().message);
///     log(receipt->audit.unchanged_fraction());             // the share of the changes that rounding lost
///     lowrank::throw_if_failed(lowrank::unmerge(lowrank::weight_view<float>(w), *receipt, adapter.delta()));
///
/// One rule for every storage type: new = round(float(W) + delta), the sum taken in double from an exactly defined
/// delta, rounded to float once (not at all for double weights) and then to storage. An entry whose delta is zero keeps
/// its bits. The receipt holds what (new - delta) misses of the old value, in units of the last place: mostly nothing.
///
/// A receipt undoes the latest change only: unmerge in reverse order, or use `merge_stack` (merge_stack.hpp), which
/// removes adapters in any order. A wrong order is noticed before anything is touched.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What a merge did to the weight, as far as rounding let it.
struct merge_audit {
    std::uint64_t entries = 0;    ///< Of the weight.
    std::uint64_t touched = 0;    ///< Entries the exact change is not zero for.
    std::uint64_t unchanged = 0;  ///< Touched entries whose bits stayed: the change was lost.
    double change_norm = 0;       ///< ||exact change||_F, of the scaled weight where rows or columns are scaled.
    double relative_error = 0;    ///< ||realised change - exact change||_F / ||exact change||_F.
    double worst_error = 0;       ///< The largest |realised - exact|,
    index worst_row = 0;          ///< and where it is.
    index worst_col = 0;

    /// Of the touched entries.
    [[nodiscard]] double unchanged_fraction() const noexcept {
        return touched == 0 ? 0.0 : static_cast<double>(unchanged) / static_cast<double>(touched);
    }
};

/// What `unmerge` needs in addition to the change. A plain value; store it with the weight.
struct merge_receipt {
    merge_audit audit = {};
    index rows = 0;
    index cols = 0;
    std::uint64_t merged_checksum = 0;  ///< of the merged weight
    std::uint64_t change_checksum = 0;  ///< of the change: factors, scales, and the arithmetic that made its entries
    std::uint64_t code_checksum = 0;    ///< of `corrections`
    std::vector<std::vector<std::uint8_t>> corrections = {};  ///< one code per block of columns

    /// Size of the corrections.
    [[nodiscard]] double bits_per_weight() const noexcept {
        std::size_t bytes = 0;
        for (const auto& code : corrections) {
            bytes += code.size();
        }
        return audit.entries == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(audit.entries);
    }
};

/// Options of a merge. Both scales must outlive the call and be passed to `unmerge` again.
template <real S>
struct merge_options {
    std::span<const S> row_scale = {};     ///< If not empty, row i of W + delta is multiplied by row_scale[i].
    std::span<const S> column_scale = {};  ///< The same for columns (transposed storage, scaled inputs).
    executor exec = {};                    ///< Runs the blocks of columns.
};

/// W <- round(float(W) + change), with row and column scales W <- round(R (float(W) + change) C), in place.
///
/// \pre    The change has the shape of W; scales are empty or fit.
/// \return The receipt; `non_finite` if W, the change or the merged value of some entry is NaN or infinite (as when
///         float16 overflows), with W as it was, bit for bit.
/// \cost   2 r m n flops in double; reads and writes W once. Scratch: one block of 512 columns of the right factor.
/// \note   The receipt of float and 16-bit weights holds on every machine, that of double weights for one binary.
///         The same bits for every executor.
template <storage T>
[[nodiscard]] result<merge_receipt> merge(weight_view<T> w, const low_rank<compute_t<T>>& change,
                                          const merge_options<compute_t<T>>& options = {});

/// Gives W back the bits it had before the merge that made `receipt`. `change` and the scales are those of the merge.
///
/// \return `mismatch`, with W untouched, if W was modified after that merge, or if the change or the receipt belongs to
///         another merge.
/// \cost   One pass over W more than the merge.
template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt, const low_rank<compute_t<T>>& change,
               const merge_options<compute_t<T>>& options = {});

namespace detail {

/// `merge` of a copy that is not kept: the same bits and the same audit for less than half of the time, nothing to
/// unmerge with, and a failure leaves the copy half merged.
template <storage T>
[[nodiscard]] result<merge_audit> merge_copy(weight_view<T> w, const low_rank<compute_t<T>>& change,
                                             const merge_options<compute_t<T>>& options = {});

/// Of the corrections of a receipt.
LOWRANK_API [[nodiscard]] std::uint64_t code_checksum(const std::vector<std::vector<std::uint8_t>>& corrections);

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/merge/merge.ipp>
#endif

#endif  // LOWRANK_LORA_MERGE_MERGE_HPP

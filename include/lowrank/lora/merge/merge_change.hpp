// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_CHANGE_HPP
#define LOWRANK_LORA_MERGE_MERGE_CHANGE_HPP

/// \file
/// Merges whatever an adapter does to a weight in place, and undoes it bit for bit.
///
///     lowrank::any_adapter<float> a = adapter;
///     auto receipt = lowrank::merge(lowrank::weight_view<float>(w), a, 0.5F);
///     lowrank::throw_if_failed(lowrank::unmerge(lowrank::weight_view<float>(w), *receipt, a, 0.5F));
///     auto other = lowrank::merge(lowrank::weight_view<float>(w), a.change());      // a `weight_change`
///
/// Sums and scales go through `merge`, transforms of rows and replacements through `merge_transformed`.

#include <string>
#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/merge/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct change_merge_options {
    executor exec = {};  ///< Runs blocks of columns or groups of rows.
};

/// W <- round(W'), in place, with audit and receipt.
/// \pre    The change is for a weight of this shape. A `magnitude_change` is `resolved` first: its lengths are those of
///         the weight before the merge, which unmerging does not know.
/// \return As `merge` of a low-rank change, and as `merge_transformed`.
template <storage T>
[[nodiscard]] result<merge_receipt> merge(weight_view<T> w,
                                          const std::type_identity_t<weight_change<compute_t<T>>>& change,
                                          const change_merge_options& options = {});

/// Gives W back the bits it had before that merge.
template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt,
               const std::type_identity_t<weight_change<compute_t<T>>>& change,
               const change_merge_options& options = {});

/// W <- round(W + t (W' - W)), in place, with audit and receipt.
/// \return As above, and `unsupported`, with the reason, for a kind that cannot be merged.
template <storage T>
[[nodiscard]] result<merge_receipt> merge(weight_view<T> w, const any_adapter<compute_t<T>>& adapter,
                                          std::type_identity_t<compute_t<T>> strength = 1,
                                          const change_merge_options& options = {}) {
    if (!adapter.not_merged().empty()) {
        return status{errc::unsupported, std::string(adapter.not_merged())};
    }
    return merge(w, adapter.change(strength), options);
}

/// Gives W back the bits it had before that merge.
template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt, const any_adapter<compute_t<T>>& adapter,
               std::type_identity_t<compute_t<T>> strength = 1, const change_merge_options& options = {}) {
    if (!adapter.not_merged().empty()) {
        return {errc::unsupported, std::string(adapter.not_merged())};
    }
    return unmerge(w, receipt, adapter.change(strength), options);
}

/// Whether a change is for an out x in weight. Scales may come with factors of no size.
template <real S>
[[nodiscard]] bool fits_weight(const weight_change<S>& change, index out, index in);

/// W' as a dense matrix in double, which no receipt takes back. A magnitude measures the rows of W itself.
/// \pre The change is for a weight of this shape.
template <real S>
[[nodiscard]] matrix<double> changed(const weight_change<S>& change, const matrix<double>& w);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/merge/merge_change.ipp>
#endif

#endif  // LOWRANK_LORA_MERGE_MERGE_CHANGE_HPP

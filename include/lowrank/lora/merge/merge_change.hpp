// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_CHANGE_HPP
#define LOWRANK_LORA_MERGE_MERGE_CHANGE_HPP

/// \file
/// Merges whatever an adapter does to a weight in place, and undoes it bit for bit.
///
///     auto receipt = lowrank::merge(lowrank::weight_view<half>(w), adapter, 0.5F);      // an `any_adapter`
///     auto receipt = lowrank::merge(lowrank::weight_view<half>(w), change);             // a `weight_change`
///     lowrank::throw_if_failed(lowrank::unmerge(lowrank::weight_view<half>(w), *receipt, change));
///
/// Sums and scales go through `merge`, transforms of rows and replacements through `merge_transformed`.

#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Calls `sum(delta, options)` for what `merge` does, `rows(transform, options)` for what `merge_transformed` does.
template <real S, class Sum, class Rows>
auto merge_as(const weight_change<S>& change, const executor& run, Sum&& sum, Rows&& rows) {
    using result_type = decltype(sum(low_rank<S>{}, merge_options<S>{}));
    return std::visit(
        overloaded{[&](const low_rank<S>& d) -> result_type { return sum(d, merge_options<S>{.exec = run}); },
                   [&](const scaled_change<S>& c) -> result_type {
                       return sum(c.delta, merge_options<S>{.row_scale = entries(c.row_scale),
                                                            .column_scale = entries(c.column_scale),
                                                            .exec = run});
                   },
                   [&](const magnitude_change<S>&) -> result_type {
                       fail_contract("merge: a magnitude needs the lengths of the rows first: see resolved()");
                   },
                   [&](const row_change& c) -> result_type {
                       return rows(c.rows, transformed_merge_options{.transposed = c.acts_on_transpose, .exec = run});
                   },
                   [&](const added_rows_change& c) -> result_type {
                       return rows(c.rows, transformed_merge_options{.transposed = c.acts_on_transpose, .exec = run});
                   },
                   [&](const replacement<S>& c) -> result_type {
                       return rows(replaced_rows<S>{c}, transformed_merge_options{.exec = run});
                   }},
        change);
}

}  // namespace detail

/// W <- round(W'), in place, with audit and receipt.
/// \pre    The change is for a weight of this shape. A `magnitude_change` is `resolved` first: its lengths are those of
///         the weight before the merge, which unmerging does not know.
/// \return As `merge` of a low-rank change, and as `merge_transformed`.
template <storage T>
[[nodiscard]] result<merge_receipt> merge(weight_view<T> w,
                                          const std::type_identity_t<weight_change<compute_t<T>>>& change,
                                          const executor& run = {}) {
    return detail::merge_as(
        change, run, [&](const auto& delta, const auto& options) { return merge(w, delta, options); },
        [&](const auto& rows, const auto& options) { return merge_transformed(w, rows, options); });
}

/// Gives W back the bits it had before that merge.
template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt,
               const std::type_identity_t<weight_change<compute_t<T>>>& change, const executor& run = {}) {
    return detail::merge_as(
        change, run, [&](const auto& delta, const auto& options) { return unmerge(w, receipt, delta, options); },
        [&](const auto& rows, const auto& options) { return unmerge_transformed(w, receipt, rows, options); });
}

/// W <- round(W + t (W' - W)), in place, with audit and receipt.
template <storage T>
[[nodiscard]] result<merge_receipt> merge(weight_view<T> w, const any_adapter<compute_t<T>>& adapter,
                                          std::type_identity_t<compute_t<T>> strength = 1, const executor& run = {}) {
    return merge(w, adapter.change(strength), run);
}

/// Gives W back the bits it had before that merge.
template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt, const any_adapter<compute_t<T>>& adapter,
               std::type_identity_t<compute_t<T>> strength = 1, const executor& run = {}) {
    return unmerge(w, receipt, adapter.change(strength), run);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_MERGE_CHANGE_HPP

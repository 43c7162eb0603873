// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_TRANSFORMED_HPP
#define LOWRANK_LORA_MERGE_MERGE_TRANSFORMED_HPP

/// \file
/// Merge a change that is not a sum of two factors (a rotation, an entrywise product) in place, and undo it bit for
/// bit.
///
///     const auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), rotating);
///     const lowrank::row_rotation rows(layer);                                 // of a rotation of the inputs
///     auto receipt = lowrank::merge_transformed(lowrank::weight_view<float>(w), rows);
///     lowrank::throw_if_failed(lowrank::unmerge_transformed(lowrank::weight_view<float>(w), *receipt, rows));
///
/// The rule is that of `merge`: the new row is computed in double from the old one and rounded to storage once. The
/// receipt holds what the inverse transform of the merged row misses of the old one. A rotation mixes the rounding
/// errors of a whole block, so that this takes 1 to 2.3 bits a weight, where an additive merge needs next to none.

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/merge/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Options of a transformed merge.
struct transformed_merge_options {
    bool transposed = false;  ///< the weight is stored in x out (fan-in-fan-out)
    executor exec = {};       ///< Runs the groups of rows.
};

namespace detail {

/// Rows (or stored columns) merged at a time. Part of the receipt's format.
inline constexpr index transformed_rows = 32;

/// A transform that somebody else owns.
template <row_transform F>
struct borrowed_transform {
    const F* f;

    [[nodiscard]] bool fits(index out, index in) const { return f->fits(out, in); }
    void forward(index first, column_view<double> rows, workspace& ws) const { f->forward(first, rows, ws); }
    void backward(index first, column_view<double> rows, workspace& ws) const { f->backward(first, rows, ws); }
};

template <storage T>
[[nodiscard]] result<merge_receipt> merge_rows(weight_view<T> w, const any_row_transform& f,
                                               const transformed_merge_options& options);
template <storage T>
[[nodiscard]] status unmerge_rows(weight_view<T> w, const merge_receipt& receipt, const any_row_transform& f,
                                  const transformed_merge_options& options);

}  // namespace detail

/// Row i of W <- round(f(row i of W)), in place.
///
/// \return The receipt; `non_finite` if W or its merged value is NaN or infinite anywhere, with W as it was, bit for
///         bit.
/// \cost   Three passes of the transform in double (new rows, what comes back, a checksum of the transform).
/// \note   The receipt holds for one binary and CPU; a receipt that does not fit is refused. The same bits for every
///         executor.
template <storage T, row_transform F>
[[nodiscard]] result<merge_receipt> merge_transformed(weight_view<T> w, const F& f,
                                                      const transformed_merge_options& options = {}) {
    return detail::merge_rows(w, detail::borrowed_transform<F>{&f}, options);
}

/// Gives W back the bits it had before. The transform and the options are those of the merge.
///
/// \return `mismatch`, with W untouched, if W is not what that merge left, or the transform or the receipt is another.
template <storage T, row_transform F>
status unmerge_transformed(weight_view<T> w, const merge_receipt& receipt, const F& f,
                           const transformed_merge_options& options = {}) {
    return detail::unmerge_rows(w, receipt, detail::borrowed_transform<F>{&f}, options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/merge/merge_transformed.ipp>
#endif

#endif  // LOWRANK_LORA_MERGE_MERGE_TRANSFORMED_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_PRUNE_MAGNITUDE_HPP
#define LOWRANK_PRUNE_MAGNITUDE_HPP

/// \file
/// Unstructured magnitude pruning: small entries become zero.
///
///     auto zeros = lowrank::prune_to_rate(lowrank::weight_view<float>(w), 9.0);   // LASER's rate: zeroes the smaller 90 %
///     std::vector<float> values = {3, -1, 2};
///     lowrank::keep_largest<float>(values, 2);                       // PEFT's rule: the 2 largest stay
///
/// The two rules of the field differ at ties and by one entry; both are here under their own names.
/// Sharma, Ash, Misra, LASER, arXiv 2312.13558 (code: `dropout`); PEFT, merge_utils: magnitude_based_pruning.

#include <span>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Zeroes every entry with |w| <= t, where t is the value at place int(rate * 0.1 * size) of the sorted magnitudes:
/// at least one entry more than the fraction, and all that tie with it. A place past the end means the last.
///
/// \pre    0 <= rate <= 10
/// \return The number of entries with |w| <= t; `non_finite`, with W as it was, if W holds NaN or infinity.
/// \cost   One selection over a copy of the magnitudes.
template <storage T>
[[nodiscard]] result<index> prune_to_rate(weight_view<T> w, double rate);

/// Keeps the `count` entries of largest magnitude and zeroes the others; among equal ones the earlier stays.
///
/// \pre count >= 0; every entry is finite.
/// \cost One selection over the positions.
template <real S>
void keep_largest(std::span<S> values, index count);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/prune/magnitude.ipp>
#endif

#endif  // LOWRANK_PRUNE_MAGNITUDE_HPP

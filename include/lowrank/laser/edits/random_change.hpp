// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_RANDOM_CHANGE_HPP
#define LOWRANK_LASER_EDITS_RANDOM_CHANGE_HPP

/// \file
/// The control of an edit: a random change of the same size.
///
///     auto receipt = lowrank::apply_random_change<float>(w, edited.removed_norm, 7).value();   // as large as an edit
///     // evaluate: if this helps as much as the edit, it was not the components that the edit removed
///     lowrank::throw_if_failed(lowrank::undo_edit<float>(w, receipt));

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W := W + E with ||E||_F = norm and E in a random direction, independent normal entries before scaling.
///
/// \pre    norm >= 0 and finite.
/// \return `non_finite` if the weight or the changed weight is not finite; the weight is then as it was.
/// \cost   Two passes over the weight, one copy.
/// \note   The entries of E are a function of the seed and the position alone.
template <storage T>
[[nodiscard]] result<edit_receipt<T>> apply_random_change(weight_view<T> w, double norm, std::uint64_t seed = 0);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/random_change.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_RANDOM_CHANGE_HPP

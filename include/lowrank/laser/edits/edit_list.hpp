// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_EDIT_LIST_HPP
#define LOWRANK_LASER_EDITS_EDIT_LIST_HPP

/// \file
/// Several edits of a model, applied and undone together.
///
///     auto done = lowrank::apply_edits<float>(model.weights, edits);    // all, or none and the reason
///     if (done) lowrank::throw_if_failed(lowrank::undo_edits<float>(model.weights, *done));

#include <cstddef>
#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/named_weight.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The weight becomes the edited one, by any kind of edit.
///
/// \pre    `editor` was opened on this weight, whose bits are still the same.
/// \return What `weight_editor::write` says, or `mismatch` if the weight was changed since; it is then not touched.
template <storage T>
[[nodiscard]] result<edit_receipt<T>> apply_edit(weight_view<T> w, weight_editor<T>& editor, const edit& e);

/// An edit in place: which of the weights it changed, and how to undo it.
template <storage T>
struct applied_edit {
    std::size_t weight = 0;
    edit_receipt<T> receipt = {};
};

/// Undoes edits, the latest first.
/// \return `mismatch` if a weight is not as its edit left it; that edit and the earlier ones then stay in place.
template <storage T>
status undo_edits(std::span<const named_weight<T>> weights, std::span<const applied_edit<T>> applied);

/// Applies edits in order, each with the spectrum its weight has at that moment.
///
/// \return `not_found` if an edit names no weight of the list, `mismatch` if it was made for another shape, or what
///         `svd` and `apply_edit` say; then every weight has the bits it had.
/// \cost   One spectrum per edit.
template <storage T>
[[nodiscard]] result<std::vector<applied_edit<T>>> apply_edits(std::span<const named_weight<T>> weights,
                                                               std::span<const edit> edits);

/// The same for vectors.
template <storage T>
[[nodiscard]] result<std::vector<applied_edit<T>>> apply_edits(const std::vector<named_weight<T>>& weights,
                                                               const std::vector<edit>& edits);
template <storage T>
status undo_edits(const std::vector<named_weight<T>>& weights, const std::vector<applied_edit<T>>& applied);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/edit_list.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_EDIT_LIST_HPP

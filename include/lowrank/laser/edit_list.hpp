// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDIT_LIST_HPP
#define LOWRANK_LASER_EDIT_LIST_HPP

/// \file
/// Several edits of a model, applied and undone together.
///
///     auto done = lowrank::apply_edits<float>(weights, edits);          // all, or none and the reason
///     if (done) lowrank::throw_if_failed(lowrank::undo_edits<float>(weights, *done));

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/laser/edit.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A weight of a model, borrowed under its name. Searches and edit lists write to it. Assigning one to another points
/// it elsewhere and touches no weight, so that lists of them can be sorted and reversed.
template <storage T>
struct named_weight {
    std::string name;
    weight_view<T> weight;

    named_weight(std::string called, weight_view<T> borrowed) : name(std::move(called)), weight(borrowed) {}
    named_weight(const named_weight&) = default;
    ~named_weight() = default;
    named_weight& operator=(const named_weight& other) {
        if (this != &other) {
            name = other.name;
            std::construct_at(&weight, other.weight);  // assigning views would copy the entries they show
        }
        return *this;
    }

    /// The weight, read-only.
    [[nodiscard]] const_weight_view<T> values() const {
        return const_weight_view<T>(weight.data(), weight.rows(), weight.cols(), weight.outerStride());
    }
};

/// An edit in place: which of the weights it changed, and how to take it back.
template <storage T>
struct applied_edit {
    std::size_t weight = 0;
    edit_receipt<T> receipt = {};
};

/// Takes edits back, the latest first.
/// \return `mismatch` if a weight is not as its edit left it; that edit and the earlier ones then stay in place.
template <storage T>
status undo_edits(std::span<const named_weight<T>> weights, std::span<const applied_edit<T>> applied) {
    for (std::size_t i = applied.size(); i-- > 0;) {
        if (status why = undo_edit<T>(weights[applied[i].weight].weight, applied[i].receipt); !why) {
            return {why.code, weights[applied[i].weight].name + ": " + why.message};
        }
    }
    return {};
}

/// Applies edits in order, each with the spectrum its weight has at that moment.
///
/// \return `not_found` if an edit names no weight of the list, `mismatch` if it was made for another shape, or what
///         `make_spectrum` and `apply_edit` say; then every weight has the bits it had.
/// \cost   One spectrum per edit.
template <storage T>
[[nodiscard]] result<std::vector<applied_edit<T>>> apply_edits(std::span<const named_weight<T>> weights,
                                                               std::span<const edit> edits) {
    std::vector<applied_edit<T>> applied;
    const auto apply_one = [&](const edit& e) -> status {
        for (std::size_t w = 0; w < weights.size(); ++w) {
            if (weights[w].name != e.weight) {
                continue;
            }
            const auto s = make_spectrum(weights[w].values());
            if (!s) {
                return {s.error().code, "apply_edits: " + e.weight + ": " + s.error().message};
            }
            if (s->size() != e.components || e.keep.bound() > s->size()) {
                return {errc::mismatch, "apply_edits: " + e.weight + " has " + std::to_string(s->size()) +
                                            " components, the edit is for " + std::to_string(e.components)};
            }
            auto receipt = apply_edit<T>(weights[w].weight, *s, e.keep);
            if (!receipt) {
                return receipt.error();
            }
            applied.push_back({w, *std::move(receipt)});
            return {};
        }
        return {errc::not_found, "apply_edits: no weight is called " + e.weight};
    };
    for (const edit& e : edits) {
        if (status why = apply_one(e); !why) {
            (void)undo_edits<T>(weights, applied);
            return why;
        }
    }
    return applied;
}

/// The same for vectors.
template <storage T>
[[nodiscard]] result<std::vector<applied_edit<T>>> apply_edits(const std::vector<named_weight<T>>& weights,
                                                               const std::vector<edit>& edits) {
    return apply_edits<T>(std::span<const named_weight<T>>(weights), std::span<const edit>(edits));
}
template <storage T>
status undo_edits(const std::vector<named_weight<T>>& weights, const std::vector<applied_edit<T>>& applied) {
    return undo_edits<T>(std::span<const named_weight<T>>(weights), std::span<const applied_edit<T>>(applied));
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDIT_LIST_HPP

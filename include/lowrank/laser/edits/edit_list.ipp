// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_EDIT_LIST_IPP
#define LOWRANK_LASER_EDITS_EDIT_LIST_IPP

#include <lowrank/laser/edits/edit_list.hpp>

#include <utility>

namespace lowrank::inline LOWRANK_ABI {

template <storage T>
result<edit_receipt<T>> apply_edit(weight_view<T> w, weight_editor<T>& editor, const edit& e) {
    const auto bits = const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride());
    if (detail::bits_hash<T>(bits) != detail::bits_hash<T>(editor.original())) {
        return status{errc::mismatch, editor.name() + " was changed since it was factorized; open it again"};
    }
    const auto size = editor.write(e, w);
    if (!size) {
        detail::copy_bits<T>(editor.original(), w);
        return size.error();
    }
    return edit_receipt<T>{.before = editor.original(),
                           .after_hash = detail::bits_hash<T>(bits),
                           .keep = e.keep(),
                           .removed_norm = size->removed_norm,
                           .relative_error = size->relative_error};
}

template <storage T>
status undo_edits(std::span<const named_weight<T>> weights, std::span<const applied_edit<T>> applied) {
    for (std::size_t i = applied.size(); i-- > 0;) {
        if (status why = undo_edit<T>(weights[applied[i].weight].weight, applied[i].receipt); !why) {
            return {why.code, weights[applied[i].weight].name + ": " + why.message};
        }
    }
    return {};
}

template <storage T>
result<std::vector<applied_edit<T>>> apply_edits(std::span<const named_weight<T>> weights,
                                                 std::span<const edit> edits) {
    std::vector<applied_edit<T>> applied;
    const auto apply_one = [&](const edit& e) -> status {
        for (std::size_t w = 0; w < weights.size(); ++w) {
            if (weights[w].name != e.weight) {
                continue;
            }
            auto editor = weight_editor<T>::open(weights[w]);
            if (!editor) {
                return {editor.error().code, "apply_edits: " + editor.error().message};
            }
            auto receipt = apply_edit<T>(weights[w].weight, *editor, e);
            if (!receipt) {
                return {receipt.error().code, "apply_edits: " + receipt.error().message};
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

template <storage T>
result<std::vector<applied_edit<T>>> apply_edits(const std::vector<named_weight<T>>& weights,
                                                 const std::vector<edit>& edits) {
    return apply_edits<T>(std::span<const named_weight<T>>(weights), std::span<const edit>(edits));
}

template <storage T>
status undo_edits(const std::vector<named_weight<T>>& weights, const std::vector<applied_edit<T>>& applied) {
    return undo_edits<T>(std::span<const named_weight<T>>(weights), std::span<const applied_edit<T>>(applied));
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_EDIT_LIST_OF(T)                                                                           \
    template result<edit_receipt<T>> apply_edit(weight_view<T>, weight_editor<T>&, const edit&);          \
    template status undo_edits(std::span<const named_weight<T>>, std::span<const applied_edit<T>>);       \
    template status undo_edits(const std::vector<named_weight<T>>&, const std::vector<applied_edit<T>>&); \
    template result<std::vector<applied_edit<T>>> apply_edits(std::span<const named_weight<T>>,           \
                                                              std::span<const edit>);                     \
    template result<std::vector<applied_edit<T>>> apply_edits(const std::vector<named_weight<T>>&,        \
                                                              const std::vector<edit>&);
LOWRANK_EDIT_LIST_OF(float)
LOWRANK_EDIT_LIST_OF(double)
LOWRANK_EDIT_LIST_OF(half)
LOWRANK_EDIT_LIST_OF(bfloat16)
#undef LOWRANK_EDIT_LIST_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_EDIT_LIST_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_ALORA_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_ALORA_IPP

#include <lowrank/lora/kinds/lora_forms/alora.hpp>

#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY index alora_start(std::span<const std::int64_t> tokens, std::span<const std::int64_t> invocation) {
    detail::expects(!invocation.empty(), "alora_start: the invocation needs at least one token");
    const auto n = static_cast<index>(tokens.size());
    const auto m = static_cast<index>(invocation.size());
    for (index first = n - m; first >= 0; --first) {
        index same = 0;
        while (same < m &&
               tokens[static_cast<std::size_t>(first + same)] == invocation[static_cast<std::size_t>(same)]) {
            ++same;
        }
        if (same == m) {
            return first;
        }
    }
    return n;
}

namespace detail {

/// `body(first column, count)` of the active columns of every row. `position` is that of each row's first column.
template <class F>
void for_active_columns(std::span<const index> starts, index columns, index position, F&& body) {
    const auto rows = static_cast<index>(starts.size());
    expects(rows > 0 && columns % rows == 0, "alora: the batch must have as many columns for every start");
    const index length = columns / rows;
    for (index row = 0; row < rows; ++row) {
        const index skip = starts[static_cast<std::size_t>(row)] - position;
        const index first = skip < 0 ? 0 : skip < length ? skip : length;
        if (first < length) {
            body(row * length + first, length - first);
        }
    }
}

}  // namespace detail

template <real S>
void alora_forward(const alora_adapter<S>& adapter, std::type_identity_t<S> strength, std::span<const index> starts,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y, workspace& ws,
                   index position, const dropout_key& key) {
    detail::check_lora_call("alora_forward", adapter.lora, x, y.rows(), y.cols());
    detail::for_active_columns(starts, x.cols(), position, [&](index first, index count) {
        dropout_key part = key;
        part.first_column += first;
        lora_forward(adapter.lora, strength, detail::some_columns(x, first, count),
                     detail::some_columns(y, first, count), ws, part);
    });
}

template <real S>
void alora_backward(const alora_adapter<S>& adapter, std::type_identity_t<S> strength, std::span<const index> starts,
                    std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                    lora_gradient<S>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws, index position,
                    const dropout_key& key) {
    detail::check_lora_call("alora_backward", adapter.lora, x, dy.rows(), dy.cols());
    detail::for_active_columns(starts, x.cols(), position, [&](index first, index count) {
        dropout_key part = key;
        part.first_column += first;
        column_view<S> dx_part =
            dx == nullptr ? column_view<S>(nullptr, 0, 0) : detail::some_columns(*dx, first, count);
        lora_backward(adapter.lora, strength, detail::some_columns(x, first, count),
                      detail::some_columns(dy, first, count), gradient, dx == nullptr ? nullptr : &dx_part, ws, part);
    });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ALORA_OF(S)                                                                                      \
    template void alora_forward<S>(const alora_adapter<S>&, S, std::span<const index>, const_column_view<S>,     \
                                   column_view<S>, workspace&, index, const dropout_key&);                       \
    template void alora_backward<S>(const alora_adapter<S>&, S, std::span<const index>, const_column_view<S>,    \
                                    const_column_view<S>, lora_gradient<S>&, column_view<S>*, workspace&, index, \
                                    const dropout_key&);
LOWRANK_ALORA_OF(float)
LOWRANK_ALORA_OF(double)
#undef LOWRANK_ALORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_ALORA_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ALORA_HPP
#define LOWRANK_LORA_KINDS_ALORA_HPP

/// \file
/// aLoRA: a LoRA that applies from the last occurrence of its invocation tokens on, so that what comes before can share
/// the base's KV cache.
///
///     lowrank::alora_adapter<float> a{.lora = adapter, .invocation_tokens = {1, 529, 7}};
///     const std::vector<std::int64_t> ids = {5, 1, 529, 7, 9};
///     const lowrank::index starts[] = {lowrank::alora_start(ids, a.invocation_tokens)};   // ids.size(): nowhere
///     lowrank::alora_forward<float>(a, 1.0F, starts, x, y, ws);     // columns before its row's start stay the base's
///
/// Greenewald et al., arXiv 2504.12397; the same columns as PEFT's `alora_offsets`. It cannot be merged: `merge` with
/// it does not compile.

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A LoRA and the tokens that switch it on.
template <real S>
struct alora_adapter {
    using scalar = S;

    lora_adapter<S> lora = {};
    std::vector<std::int64_t> invocation_tokens = {};
};

/// The first token of the last occurrence of `invocation` in `tokens`; tokens.size() where there is none.
/// \pre `invocation` is not empty.
[[nodiscard]] inline index alora_start(std::span<const std::int64_t> tokens, std::span<const std::int64_t> invocation) {
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

/// PEFT's `alora_offsets` entry of a start: tokens from there to the end; 0 stands for its None.
[[nodiscard]] inline index alora_offset(index start, index length) { return length - start; }

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

/// Y += strength * scaling * B A drop(X) on the active columns: row i of the batch is n / rows columns after each
/// other, active from position starts[i] on. Other columns are not touched.
///
/// `position` is where in their sequences the columns begin: 0 for a whole prompt, t for the token decoded at t.
template <real S>
void alora_forward(const alora_adapter<S>& adapter, std::type_identity_t<S> strength, std::span<const index> starts,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y, workspace& ws,
                   index position = 0, const dropout_key& key = {}) {
    detail::check_lora_call("alora_forward", adapter.lora, x, y.rows(), y.cols());
    detail::for_active_columns(starts, x.cols(), position, [&](index first, index count) {
        dropout_key part = key;
        part.first_column += static_cast<decltype(part.first_column)>(first);
        lora_forward(adapter.lora, strength, x.middleCols(first, count), y.middleCols(first, count), ws, part);
    });
}

/// Adds the gradients of `alora_forward`; only active columns contribute. `dx` may be null.
template <real S>
void alora_backward(const alora_adapter<S>& adapter, std::type_identity_t<S> strength, std::span<const index> starts,
                    std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                    lora_gradient<S>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws,
                    index position = 0, const dropout_key& key = {}) {
    detail::check_lora_call("alora_backward", adapter.lora, x, dy.rows(), dy.cols());
    detail::for_active_columns(starts, x.cols(), position, [&](index first, index count) {
        dropout_key part = key;
        part.first_column += static_cast<decltype(part.first_column)>(first);
        if (dx == nullptr) {
            lora_backward(adapter.lora, strength, x.middleCols(first, count), dy.middleCols(first, count), gradient,
                          nullptr, ws, part);
            return;
        }
        column_view<S> dx_part = dx->middleCols(first, count);
        lora_backward(adapter.lora, strength, x.middleCols(first, count), dy.middleCols(first, count), gradient,
                      &dx_part, ws, part);
    });
}

/// Refuses to compile: a merged weight would act on every token.
template <storage T, real S>
result<merge_receipt> merge(weight_view<T>, const alora_adapter<S>&) {
    static_assert(sizeof(S) == 0, "an aLoRA cannot be merged: it acts only after its invocation tokens");
    return status{};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ALORA_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_EMBEDDING_HPP
#define LOWRANK_LORA_KINDS_EMBEDDING_HPP

/// \file
/// LoRA on an embedding table: y = W[id] + scaling * B A[:, id].
///
///     lowrank::embedding_lookup<float>(table, ids, y);                      // table: num x dim, y: dim x tokens
///     lowrank::embedding_forward(adapter, 1.0F, ids, y, ws);                // adapter: A r x num, B dim x r
///     auto gradient = lowrank::zero_gradient(adapter);
///     lowrank::embedding_backward(adapter, 1.0F, ids, dy, gradient, ws, {.padding_index = 0});
///
/// The table is stored transposed with respect to a linear layer: merge `transpose(adapter.delta())` into it. PEFT and
/// loralib start with A zero and B normal; `make_embedding_lora` does.

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A new adapter for a num x dim table: A zero, B standard normal.
template <real S>
[[nodiscard]] lora_adapter<S> make_embedding_lora(index num, index dim, const lora_options& options = {}) {
    auto adapter = make_lora<S>(dim, num, options);
    adapter.lora_A.setZero();
    fill_normal(adapter.lora_B, S(1), philox(options.seed, options.stream));
    return adapter;
}

namespace detail {

inline void check_ids(const char* function, std::span<const std::int64_t> ids, index num, index columns) {
    if (static_cast<index>(ids.size()) != columns) [[unlikely]] {
        fail_contract_with(function, ": needs one column per id, got ", columns, " for ", ids.size());
    }
    for (const auto id : ids) {
        expects_in_range(function, "id", static_cast<index>(id), index{0}, num - 1);
    }
}

/// z = A[:, ids]
template <real S>
void gather_columns(const matrix<S>& a, std::span<const std::int64_t> ids, column_view<S> z) {
    for (std::size_t j = 0; j < ids.size(); ++j) {
        z.col(static_cast<index>(j)) = a.col(static_cast<index>(ids[j]));
    }
}

}  // namespace detail

/// Y[:, j] = table[ids[j], :]. \pre Every id is a row of the table.
template <storage T>
void embedding_lookup(const_weight_view<T> table, std::span<const std::int64_t> ids, column_view<compute_t<T>> y) {
    detail::check_ids("embedding_lookup", ids, table.rows(), y.cols());
    detail::expects_shape("embedding_lookup", "y", y.rows(), y.cols(), table.cols(), y.cols());
    for (std::size_t j = 0; j < ids.size(); ++j) {
        y.col(static_cast<index>(j)) = table.row(static_cast<index>(ids[j])).transpose().template cast<compute_t<T>>();
    }
}

/// Y += strength * scaling * B A[:, ids].
template <real S>
void embedding_forward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                       std::span<const std::int64_t> ids, std::type_identity_t<column_view<S>> y, workspace& ws) {
    detail::check_ids("embedding_forward", ids, adapter.cols(), y.cols());
    detail::expects_shape("embedding_forward", "y", y.rows(), y.cols(), adapter.rows(), y.cols());
    if (detail::all_zero(adapter.lora_B)) {
        return;
    }
    const workspace::frame scope(ws);
    auto z = ws.take<S>(adapter.rank(), y.cols());
    detail::gather_columns<S>(adapter.lora_A, ids, z);
    add_product<S, 0>(strength * adapter.scaling(), const_column_view<S>(adapter.lora_B), z, y, ws);
}

/// Options of an embedding layer.
struct embedding_options {
    index padding_index = -1;  ///< This row of the table takes part in the forward pass and gets no gradient.
};

/// dB += s dY A[:, ids]^T and dA[:, ids] += s B^T dY, without the column of the padding index.
template <real S>
void embedding_backward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                        std::span<const std::int64_t> ids, std::type_identity_t<const_column_view<S>> dy,
                        lora_gradient<S>& gradient, workspace& ws, const embedding_options& options = {}) {
    detail::check_ids("embedding_backward", ids, adapter.cols(), dy.cols());
    detail::expects_shape("embedding_backward", "dy", dy.rows(), dy.cols(), adapter.rows(), dy.cols());
    detail::expects_shape("embedding_backward", "gradient.lora_A", gradient.lora_A.rows(), gradient.lora_A.cols(),
                          adapter.lora_A.rows(), adapter.lora_A.cols());
    const workspace::frame scope(ws);
    const S scale = strength * adapter.scaling();
    auto z = ws.take<S>(adapter.rank(), dy.cols());
    detail::gather_columns<S>(adapter.lora_A, ids, z);
    gradient.lora_B.noalias() += scale * (dy * z.transpose());
    auto t = ws.take<S>(adapter.rank(), dy.cols());
    t.setZero();
    add_transposed_product<S, 0>(scale, const_column_view<S>(adapter.lora_B), dy, t, ws);
    for (std::size_t j = 0; j < ids.size(); ++j) {
        if (const auto id = static_cast<index>(ids[j]); id != options.padding_index) {
            gradient.lora_A.col(id) += t.col(static_cast<index>(j));
        }
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_EMBEDDING_HPP

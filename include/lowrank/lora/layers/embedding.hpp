// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_LAYERS_EMBEDDING_HPP
#define LOWRANK_LORA_LAYERS_EMBEDDING_HPP

/// \file
/// LoRA on an embedding table: y = W[id] + scaling * B A[:, id].
///
///     lowrank::embedding_lookup<float>(table, ids, y);                      // table: num x dim, y: dim x tokens
///     lowrank::embedding_forward(adapter, 1.0F, ids, y, ws);                // adapter: A r x num, B dim x r
///     auto gradient = lowrank::zero_gradient(adapter);
///     lowrank::embedding_backward(adapter, 1.0F, ids, dy, gradient, ws, {.padding_index = 0});
///
/// The table is stored transposed with respect to a linear layer: merge `table_lora_adapter` into it. PEFT and
/// loralib start with A zero and B normal; `make_embedding_lora` does.

#include <cstdint>
#include <span>
#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A new adapter for a num x dim table: A zero, B standard normal.
template <real S>
[[nodiscard]] lora_adapter<S> make_embedding_lora(index num, index dim, const lora_options& options = {});

/// Y[:, j] = table[ids[j], :]. \pre Every id is a row of the table.
template <storage T>
void embedding_lookup(const_weight_view<T> table, std::span<const std::int64_t> ids, column_view<compute_t<T>> y);

/// Y += strength * scaling * B A[:, ids].
template <real S>
void embedding_forward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                       std::span<const std::int64_t> ids, std::type_identity_t<column_view<S>> y, workspace& ws);

/// Options of an embedding layer.
struct embedding_options {
    index padding_index = -1;  ///< This row of the table takes part in the forward pass and gets no gradient.
};

/// dB += s dY A[:, ids]^T and dA[:, ids] += s B^T dY, without the column of the padding index.
template <real S>
void embedding_backward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                        std::span<const std::int64_t> ids, std::type_identity_t<const_column_view<S>> dy,
                        lora_gradient<S>& gradient, workspace& ws, const embedding_options& options = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/layers/embedding.ipp>
#endif

#endif  // LOWRANK_LORA_LAYERS_EMBEDDING_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MIXED_BATCH_HPP
#define LOWRANK_LORA_MIXED_BATCH_HPP

/// \file
/// One batch whose columns use different adapters, of any kinds and ranks.
///
///     const lowrank::used_adapter<float> one = {.adapter = std::make_shared<const lowrank::any_adapter<float>>(poet)};
///     const std::vector<lowrank::used_adapter<float>> adapters = {one, {}};      // the second lacks this layer
///     const std::vector<lowrank::index> which = {0, -1, 1, 0};                   // -1: the base alone
///     lowrank::add_mixed_product<float>(lowrank::as_operator(w), adapters, which, x, y, ws);
///
/// Columns of one adapter are gathered, multiplied together and scattered back, as in Punica's SGMV (Chen et al.,
/// arXiv 2310.18547), so the cost is that of the columns, not of adapters times columns. An engine that computes W X
/// itself passes the sums: `add_mixed_changes`.

#include <span>
#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_stack.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Y[:, j] += t (W' - W) X[:, j] with W' what adapter `which[j]` of the list makes of W, at its strength t; nothing for a
/// negative number, and where the adapter lacks the layer (null).
///
/// \pre  One entry of `which` per column, each below the number of adapters; shapes agree; adapters that are not additive
///       have been refreshed.
/// \cost That of each adapter on its columns, plus moving each column that has an adapter twice; for kinds that are not
///       additive one product with W more.
template <real S>
void add_mixed_changes(std::type_identity_t<operator_reference<S>> base, std::span<const used_adapter<S>> adapters,
                       std::span<const index> which, const_column_view<S> x, column_view<S> y, workspace& ws);

/// Y[:, j] += (W + t (W' - W)) X[:, j]: the whole layer. Columns under adapters that are not additive are not multiplied
/// with the plain base.
template <real S>
void add_mixed_product(std::type_identity_t<operator_reference<S>> base, std::span<const used_adapter<S>> adapters,
                       std::span<const index> which, const_column_view<S> x, column_view<S> y, workspace& ws);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/mixed_batch.ipp>
#endif

#endif  // LOWRANK_LORA_MIXED_BATCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MIXED_BATCH_HPP
#define LOWRANK_LORA_MIXED_BATCH_HPP

/// \file
/// One batch whose columns use different adapters, of any ranks.
///
///     const std::vector<lowrank::active_adapter<float>> adapters = {
///         {.adapter = std::make_shared<const lowrank::lora_adapter<float>>(poet)},
///         {.adapter = std::make_shared<const lowrank::lora_adapter<float>>(coder), .strength = 0.5F}};
///     const std::vector<lowrank::index> which = {0, -1, 1, 0};              // -1: the base alone
///     lowrank::mixed_forward<float>(adapters, which, x, y, ws);             // Y[:, j] += adapter which[j] of X[:, j]
///
/// Columns of one adapter are gathered, multiplied together and scattered back, as in Punica's SGMV (Chen et al.,
/// arXiv 2310.18547), so the cost is that of the columns, not of adapters times columns.

#include <memory>
#include <span>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Y[:, j] += strength * scaling * B A X[:, j] with adapter `which[j]` of the list; negative: nothing. An entry that no
/// column uses, or of strength 0, may be null: an adapter without a module for this layer.
///
/// \pre  One entry of `which` per column, each below the number of adapters; shapes agree.
/// \cost 2 r (in + out) flops per column, plus moving each column that has an adapter twice.
template <real S>
void mixed_forward(std::span<const active_adapter<S>> adapters, std::span<const index> which, const_column_view<S> x,
                   column_view<S> y, workspace& ws) {
    detail::expects(static_cast<index>(which.size()) == x.cols(), "mixed_forward: needs one adapter number per column");
    for (const index w : which) {
        detail::expects(w < static_cast<index>(adapters.size()), "mixed_forward: an adapter number is too large");
    }
    for (std::size_t a = 0; a < adapters.size(); ++a) {
        const auto is_mine = [&](index j) { return which[static_cast<std::size_t>(j)] == static_cast<index>(a); };
        index count = 0;
        for (index j = 0; j < x.cols(); ++j) {
            count += is_mine(j) ? 1 : 0;
        }
        if (count == 0 || adapters[a].strength == S(0)) {
            continue;
        }
        detail::expects(adapters[a].adapter != nullptr, "mixed_forward: an adapter in use is null");
        const workspace::frame scope(ws);
        auto gathered = ws.take<S>(x.rows(), count);
        auto change = ws.take<S>(y.rows(), count);
        change.setZero();
        index at = 0;
        for (index j = 0; j < x.cols(); ++j) {
            if (is_mine(j)) {
                gathered.col(at++) = x.col(j);
            }
        }
        adapters[a].adapter->add_product(adapters[a].strength, gathered, change, ws);
        at = 0;
        for (index j = 0; j < x.cols(); ++j) {
            if (is_mine(j)) {
                y.col(j) += change.col(at++);
            }
        }
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MIXED_BATCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTED_LINEAR_HPP
#define LOWRANK_LORA_ADAPTED_LINEAR_HPP

/// \file
/// A frozen base under any number of adapters, itself a linear operator.
///
///     auto style = std::make_shared<const lowrank::lora_adapter<float>>(poet);
///     auto skill = std::make_shared<const lowrank::lora_adapter<float>>(coder);
///     lowrank::adapted_linear<float> layer{.base = lowrank::as_operator(w),
///                                          .adapters = {{.adapter = style, .strength = 0.5F}, {.adapter = skill}}};
///     auto y = lowrank::apply(layer, x);               // W x + 0.5 s1 B1 A1 x + s2 B2 A2 x
///
/// There is no merged or active state: adapters are shared and immutable while they serve, and a layer is a cheap
/// value that says which apply and how strongly. Make another one to switch.

#include <memory>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An adapter in use. Strength 0 is the same as leaving it out.
template <real S>
struct active_adapter {
    std::shared_ptr<const lora_adapter<S>> adapter = {};
    S strength = S(1);
};

/// The linear operator base + sum strength_i scaling_i B_i A_i. Ranks may differ; the sum is taken in the given order.
template <real S>
struct adapted_linear {
    using scalar = S;

    any_operator<S> base;
    std::vector<active_adapter<S>> adapters = {};

    [[nodiscard]] index rows() const { return base.rows(); }
    [[nodiscard]] index cols() const { return base.cols(); }

    /// Y += alpha (base + sum of adapters) X. Adapters whose B is zero leave the base's output bit for bit.
    /// \pre every adapter is there and has the base's shape.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        base.add_product(alpha, x, y, ws);
        for (const auto& active : adapters) {
            if (use(active)) {
                active.adapter->add_product(alpha * active.strength, x, y, ws);
            }
        }
    }

    /// Y += alpha (base + sum of adapters)^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        base.add_transposed_product(alpha, x, y, ws);
        for (const auto& active : adapters) {
            if (use(active)) {
                active.adapter->add_transposed_product(alpha * active.strength, x, y, ws);
            }
        }
    }

private:
    bool use(const active_adapter<S>& active) const {
        detail::expects(active.adapter != nullptr, "adapted_linear: an active adapter is null");
        detail::expects_shape("adapted_linear", "every adapter", active.adapter->rows(), active.adapter->cols(), rows(),
                              cols());
        return active.strength != S(0);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ADAPTED_LINEAR_HPP

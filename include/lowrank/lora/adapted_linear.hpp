// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTED_LINEAR_HPP
#define LOWRANK_LORA_ADAPTED_LINEAR_HPP

/// \file
/// A frozen base under any number of adapters of any kind, itself a linear operator.
///
///     const auto share = [](lowrank::any_adapter<float> a) {
///         return std::make_shared<const lowrank::any_adapter<float>>(std::move(a));
///     };
///     lowrank::adapted_linear<float> layer{
///         .base = lowrank::as_operator(w), .adapters = {{.adapter = share(poet), .strength = 0.5F}, {share(coder)}}};
///     auto y = lowrank::apply(layer, x);               // W x + 0.5 (W_poet - W) x + (W_coder - W) x
///
/// There is no merged or active state: adapters are shared and immutable while they serve, and a layer is a cheap
/// value that says which apply and how strongly. Make another one to switch.

#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_stack.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The linear operator W + sum t_i (W_i - W), with W_i what adapter i alone makes of W.
template <real S>
struct adapted_linear {
    using scalar = S;

    any_operator<S> base;
    std::vector<used_adapter<S>> adapters = {};  ///< One that lacks this layer may be null.

    [[nodiscard]] index rows() const { return base.rows(); }
    [[nodiscard]] index cols() const { return base.cols(); }

    /// Y += alpha (adapted base) X. LoRA adapters whose B is zero leave the base's output bit for bit.
    /// \pre every adapter has the base's shape; kinds that are not additive have been refreshed with the base.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::add_adapted<S>(alpha, base, adapters, x, y, ws, nullptr);
    }

    /// Y += alpha (adapted base)^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        add_adapted_transposed_product<S>(base, adapters, x, y, ws, alpha);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ADAPTED_LINEAR_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTER_STACK_HPP
#define LOWRANK_LORA_ADAPTER_STACK_HPP

/// \file
/// A base under any number of adapters of any kind, forward and backward: W + sum t_i (W_i - W).
///
///     auto first = std::make_shared<const lowrank::any_adapter<float>>(poet);
///     auto second = std::make_shared<const lowrank::any_adapter<float>>(coder);
///     std::vector<lowrank::used_adapter<float>> used = {{.adapter = first, .strength = 0.5F}, {.adapter = second}};
///     lowrank::add_adapted_product<float>(lowrank::as_operator(w), used, x, y, ws);
///     auto g = first->zero_gradient();                      // the first is trained, the second is frozen
///     auto gradient_of = [&](const lowrank::any_adapter<float>& a) { return &a == first.get() ? &g : nullptr; };
///     lowrank::adapted_backward<float>(lowrank::as_operator(w), used, x, dy, gradient_of, &dx, ws);
///
/// W_i is what adapter i alone makes of the original W, so the order does not matter (PEFT's does, for kinds that measure the weight). Adapters
/// that add a low-rank change cost their own flops; the first of the other kinds multiplies by the base in the place of
/// the plain product, each further one once more.

#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An adapter in use, shared and immutable while it serves. Strength 0, or no adapter (one that lacks this layer), is the
/// same as leaving it out.
template <real S>
struct used_adapter {
    std::shared_ptr<const any_adapter<S>> adapter = {};
    S strength = S(1);
};

namespace detail {

/// Calls `replace(adapter)` for those that need the base and then `plain(factor)` with how often the plain base is
/// still to be added (alpha without any such adapter, one less for each), then `add(adapter)` for the others.
template <real S, class Replace, class Plain, class Add>
void for_stack(S alpha, std::span<const used_adapter<S>> adapters, Replace&& replace, Plain&& plain, Add&& add) {
    const auto acts = [](const used_adapter<S>& used) { return used.adapter != nullptr && used.strength != S(0); };
    S missing = alpha;
    for (const auto& used : adapters) {
        if (acts(used) && !used.adapter->additive()) {
            replace(used);
            missing -= S(1);
        }
    }
    if (missing != S(0)) {
        plain(missing);
    }
    for (const auto& used : adapters) {
        if (acts(used) && used.adapter->additive()) {
            add(used);
        }
    }
}

/// Y += alpha (W + sum t_i (W_i - W)) X.
template <real S>
void add_adapted(S alpha, operator_reference<S> base, std::span<const used_adapter<S>> adapters,
                 const const_column_view<S>& x, const column_view<S>& y, workspace& ws, const dropout_key* dropout);

template <real S>
dropout_key key_for(const any_adapter<S>& adapter, const dropout_key* key) {
    dropout_key own = key == nullptr ? dropout_key{} : *key;
    own.probability = key == nullptr ? 0.0 : adapter.dropout();
    return own;
}

}  // namespace detail

/// Y += (W + sum t_i (W_i - W)) X. With `dropout`, each adapter drops inputs with its own probability (that of the key
/// is not used). LoRA adapters whose B is zero leave the base's output bit for bit.
/// \pre every adapter has the base's shape and has been refreshed.
template <real S>
void add_adapted_product(operator_reference<S> base, std::type_identity_t<std::span<const used_adapter<S>>> adapters,
                         std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                         workspace& ws, const dropout_key* dropout = nullptr) {
    detail::add_adapted<S>(S(1), base, adapters, x, y, ws, dropout);
}

/// Y += alpha (W + sum t_i (W_i - W))^T X.
template <real S>
void add_adapted_transposed_product(operator_reference<S> base,
                                    std::type_identity_t<std::span<const used_adapter<S>>> adapters,
                                    std::type_identity_t<const_column_view<S>> x,
                                    std::type_identity_t<column_view<S>> y, workspace& ws,
                                    std::type_identity_t<S> alpha = S(1));

/// Adds the gradients of a loss through `add_adapted_product`, given dY: to `gradient_of(adapter)` (a pointer; null for
/// one that is frozen) of every adapter, and to `*dx` unless it is null.
template <real S, class F>
void adapted_backward(operator_reference<S> base, std::type_identity_t<std::span<const used_adapter<S>>> adapters,
                      std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                      F&& gradient_of, std::type_identity_t<column_view<S>>* dx, workspace& ws,
                      const dropout_key* dropout = nullptr) {
    const auto back = [&](const used_adapter<S>& used) {
        const any_adapter<S>& a = *used.adapter;
        const auto key = detail::key_for(a, dropout);
        if (adapter_gradient<S>* trained = gradient_of(a); trained != nullptr) {
            a.backward(base, used.strength, x, dy, *trained, dx, ws, key);
        } else if (dx != nullptr && key.probability == 0) {
            a.add_transposed_product(base, used.strength, dy, *dx, ws);
        } else if (dx != nullptr) {
            auto unused = a.zero_gradient();
            a.backward(base, used.strength, x, dy, unused, dx, ws, key);
        }
    };
    detail::for_stack<S>(
        S(1), adapters, back,
        [&](S factor) {
            if (dx != nullptr) {
                base.add_transposed_product(factor, dy, *dx, ws);
            }
        },
        back);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/adapter_stack.ipp>
#endif

#endif  // LOWRANK_LORA_ADAPTER_STACK_HPP

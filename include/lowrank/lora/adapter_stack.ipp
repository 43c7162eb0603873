// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTER_STACK_IPP
#define LOWRANK_LORA_ADAPTER_STACK_IPP

#include <lowrank/lora/adapter_stack.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <real S>
void add_adapted(S alpha, operator_reference<S> base, std::span<const used_adapter<S>> adapters,
                 const const_column_view<S>& x, const column_view<S>& y, workspace& ws, const dropout_key* dropout) {
    const auto apply = [&](const used_adapter<S>& used) {
        used.adapter->add_product(base, alpha * used.strength, x, y, ws, key_for(*used.adapter, dropout));
    };
    for_stack<S>(
        alpha, adapters, apply, [&](S factor) { base.add_product(factor, x, y, ws); }, apply);
}

}  // namespace detail

template <real S>
void add_adapted_transposed_product(operator_reference<S> base,
                                    std::type_identity_t<std::span<const used_adapter<S>>> adapters,
                                    std::type_identity_t<const_column_view<S>> x,
                                    std::type_identity_t<column_view<S>> y, workspace& ws,
                                    std::type_identity_t<S> alpha) {
    const auto apply = [&](const used_adapter<S>& used) {
        used.adapter->add_transposed_product(base, alpha * used.strength, x, y, ws);
    };
    detail::for_stack<S>(
        alpha, adapters, apply, [&](S factor) { base.add_transposed_product(factor, x, y, ws); }, apply);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ADAPTER_STACK_OF(S)                                                                          \
    template void detail::add_adapted<S>(S, operator_reference<S>, std::span<const used_adapter<S>>,         \
                                         const const_column_view<S>&, const column_view<S>&, workspace&,     \
                                         const dropout_key*);                                                \
    template void add_adapted_transposed_product<S>(operator_reference<S>, std::span<const used_adapter<S>>, \
                                                    const_column_view<S>, column_view<S>, workspace&, S);
LOWRANK_ADAPTER_STACK_OF(float)
LOWRANK_ADAPTER_STACK_OF(double)
#undef LOWRANK_ADAPTER_STACK_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ADAPTER_STACK_IPP

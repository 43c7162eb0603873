// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_REPLACEMENT_IPP
#define LOWRANK_LORA_KINDS_REPLACEMENT_IPP

#include <lowrank/lora/kinds/replacement.hpp>

#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void applied_replacement<S>::add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                         column_view<S> y, workspace& ws, const dropout_key& /*key*/) const {
    lowrank::add_product<S, 0>(alpha, const_column_view<S>(adapter.weight), x, y, ws);
}

template <real S>
void applied_replacement<S>::add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                                    column_view<S> y, workspace& ws) const {
    lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(adapter.weight), x, y, ws);
}

template <real S>
void applied_replacement<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x,
                                      const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                      const dropout_key& /*key*/) const {
    add_outer_product(alpha, dy, x, g.weight, ws);
    if (dx != nullptr) {
        add_transposed_product(base, alpha, dy, *dx, ws);
    }
}

#ifdef LOWRANK_COMPILED
template class applied_replacement<float>;
template class applied_replacement<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_REPLACEMENT_IPP

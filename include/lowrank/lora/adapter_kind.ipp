// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTER_KIND_IPP
#define LOWRANK_LORA_ADAPTER_KIND_IPP

#include <lowrank/lora/adapter_kind.hpp>

#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/train/dropout.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Calls `body` with alpha dY, which is dY itself for alpha = 1.
template <real S, class F>
void with_scaled(S alpha, const const_column_view<S>& dy, workspace& ws, F&& body) {
    if (alpha == S(1)) {
        body(dy);
        return;
    }
    const workspace::frame scope(ws);
    auto scaled = ws.take<S>(dy.rows(), dy.cols());
    scaled.setZero();
    add_scaled(alpha, dy, scaled);
    body(const_column_view<S>(scaled));
}

}  // namespace detail

template <factored_adapter A>
void applied_factors<A>::add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                     workspace& ws, const dropout_key& key) const {
    detail::for_dropped_panels<S>(key, x, ws, [&](index first, index count, const const_column_view<S>& dropped) {
        delta_.add_product(alpha, dropped, detail::some_columns(y, first, count), ws);
    });
}

template <factored_adapter A>
void applied_factors<A>::add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                                column_view<S> y, workspace& ws) const {
    delta_.add_transposed_product(alpha, x, y, ws);
}

template <factored_adapter A>
void applied_factors<A>::backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                  const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                  const dropout_key& key) const {
    detail::with_scaled(alpha, dy, ws, [&](const const_column_view<S>& scaled) {
        detail::for_dropped_panels_back<S>(
            key, x, dx, ws,
            [&](index first, index count, const const_column_view<S>& dropped, column_view<S>* dx_panel) {
                delta_backward(delta_, dropped, detail::some_columns(scaled, first, count), g, dx_panel, ws);
            });
    });
}

template <factored_adapter A>
void applied_factors<A>::pull_back(const gradient& g, S* out) const {
    detail::add_parameters(adapter.pull_back(g), out);
}

template <operator_adapter A>
void applied_operator<A>::backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                   const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                   const dropout_key& /*key*/) const {
    detail::with_scaled(alpha, dy, ws,
                        [&](const const_column_view<S>& scaled) { adapter.backward(x, scaled, g, dx, ws); });
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ADAPTER_KIND_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTER_IPP
#define LOWRANK_LORA_ADAPTER_IPP

#include <lowrank/lora/adapter.hpp>

#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void delta_backward(const low_rank<S>& change, std::type_identity_t<const_column_view<S>> x,
                    std::type_identity_t<const_column_view<S>> dy, delta_gradient<S>& gradient,
                    std::type_identity_t<column_view<S>>* dx, workspace& ws) {
    const index k = change.rank();
    detail::expects_shape("delta_backward", "x", x.rows(), x.cols(), change.cols(), dy.cols());
    detail::expects_shape("delta_backward", "dy", dy.rows(), dy.cols(), change.rows(), x.cols());
    detail::expects_shape("delta_backward", "gradient.left", gradient.left.rows(), gradient.left.cols(), change.rows(),
                          k);
    detail::expects_shape("delta_backward", "gradient.right", gradient.right.rows(), gradient.right.cols(), k,
                          change.cols());
    if (dx != nullptr) {
        detail::expects_shape("delta_backward", "dx", dx->rows(), dx->cols(), x.rows(), x.cols());
    }
    if (k == 0 || x.cols() == 0) {
        return;
    }
    const workspace::frame scope(ws);
    auto z = ws.take<S>(k, x.cols());  // R x
    z.setZero();
    add_product<S, 0>(S(1), const_column_view<S>(change.right), x, z, ws);
    auto t = ws.take<S>(k, x.cols());  // L^T dy
    t.setZero();
    add_transposed_product<S, 0>(S(1), const_column_view<S>(change.left), dy, t, ws);
    add_outer_product(S(1), dy, z, gradient.left, ws);
    add_outer_product(S(1), t, x, gradient.right, ws);
    if (dx != nullptr) {
        add_transposed_product<S, 0>(S(1), const_column_view<S>(change.right), t, *dx, ws);
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ADAPTER_OF(S)                                                                       \
    template void delta_backward<S>(const low_rank<S>&, const_column_view<S>, const_column_view<S>, \
                                    delta_gradient<S>&, column_view<S>*, workspace&);
LOWRANK_ADAPTER_OF(float)
LOWRANK_ADAPTER_OF(double)
#undef LOWRANK_ADAPTER_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ADAPTER_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_IPP
#define LOWRANK_LORA_KINDS_LORA_IPP

#include <lowrank/lora/kinds/lora.hpp>

#include <cmath>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/lora/train/dropout.ipp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY double lora_scaling(double lora_alpha, index r, bool use_rslora) {
    detail::expects(r >= 0, "lora_scaling: r must not be negative");
    if (r == 0) {
        return 0;
    }
    const auto rank = static_cast<double>(r);
    return lora_alpha / (use_rslora ? std::sqrt(rank) : rank);
}

namespace detail {

template <real S>
void check_lora_call(const char* function, const lora_adapter<S>& adapter, const const_column_view<S>& x,
                     index out_rows, index out_cols) {
    expects_shape(function, "x", x.rows(), x.cols(), adapter.cols(), out_cols);
    expects_shape(function, "y", out_rows, out_cols, adapter.rows(), x.cols());
}

/// M X in the workspace.
template <real S>
column_view<S> applied_in(workspace& ws, const matrix<S>& m, const const_column_view<S>& x) {
    auto z = ws.take<S>(m.rows(), x.cols());
    z.setZero();
    lowrank::add_product<S, 0>(S(1), const_column_view<S>(m), x, z, ws);
    return z;
}

/// alpha M^T X in the workspace.
template <real S>
column_view<S> transposed_applied_in(workspace& ws, S alpha, const matrix<S>& m, const const_column_view<S>& x) {
    auto z = ws.take<S>(m.cols(), x.cols());
    z.setZero();
    lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(m), x, z, ws);
    return z;
}

}  // namespace detail

template <real S>
low_rank<S> lora_adapter<S>::delta(S strength) const {
    low_rank<S> d{.left = lora_B, .right = lora_A};
    const S factor = strength * scaling();
    for (S& b : detail::entries(d.left)) {
        b *= factor;
    }
    return d;
}

template <real S>
void lora_adapter<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    lora_forward(*this, alpha, x, y, ws);
}

template <real S>
void lora_adapter<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("lora_adapter::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
    detail::expects_shape("lora_adapter::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
    if (detail::all_zero(lora_B)) {
        return;
    }
    const workspace::frame scope(ws);
    const auto t = detail::transposed_applied_in<S>(ws, S(1), lora_B, x);
    lowrank::add_transposed_product<S, 0>(alpha * scaling(), const_column_view<S>(lora_A), t, y, ws);
}

template <real S>
lora_adapter<S> make_lora(index out, index in, const lora_options& options) {
    detail::expects(out >= 0 && in >= 0, "make_lora: out and in must not be negative");
    detail::expects(options.r >= 1, "make_lora: r must be at least 1");
    detail::expects(0 <= options.lora_dropout && options.lora_dropout < 1, "make_lora: lora_dropout must be in [0, 1)");
    lora_adapter<S> adapter{.lora_A = matrix<S>(options.r, in),
                            .lora_alpha = options.lora_alpha,
                            .use_rslora = options.use_rslora,
                            .lora_dropout = options.lora_dropout};
    adapter.lora_B.setZero(out, options.r);
    if (in > 0) {
        const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(in)));
        fill_uniform(adapter.lora_A, -bound, bound, philox(options.seed, options.stream));
    }
    return adapter;
}

template <real S>
void lora_forward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                  std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y, workspace& ws,
                  const dropout_key& key) {
    detail::check_lora_call("lora_forward", adapter, x, y.rows(), y.cols());
    if (detail::all_zero(adapter.lora_B)) {
        return;
    }
    const S scale = strength * adapter.scaling();
    detail::for_dropped_panels<S>(key, x, ws, [&](index first, index count, const const_column_view<S>& dropped) {
        const workspace::frame scope(ws);
        const auto z = detail::applied_in<S>(ws, adapter.lora_A, dropped);
        add_product<S, 0>(scale, const_column_view<S>(adapter.lora_B), z, detail::some_columns(y, first, count), ws);
    });
}

template <real S>
void lora_backward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                   lora_gradient<S>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws,
                   const dropout_key& key) {
    detail::check_lora_call("lora_backward", adapter, x, dy.rows(), dy.cols());
    detail::expects_shape("lora_backward", "gradient.lora_A", gradient.lora_A.rows(), gradient.lora_A.cols(),
                          adapter.lora_A.rows(), adapter.lora_A.cols());
    detail::expects_shape("lora_backward", "gradient.lora_B", gradient.lora_B.rows(), gradient.lora_B.cols(),
                          adapter.lora_B.rows(), adapter.lora_B.cols());
    if (dx != nullptr) {
        detail::expects_shape("lora_backward", "dx", dx->rows(), dx->cols(), x.rows(), x.cols());
    }
    if (adapter.rank() == 0 || x.cols() == 0) {
        return;
    }
    const S scale = strength * adapter.scaling();
    detail::for_dropped_panels_back<S>(
        key, x, dx, ws, [&](index first, index count, const const_column_view<S>& dropped, column_view<S>* dx_panel) {
            const workspace::frame scope(ws);
            const auto dy_panel = detail::some_columns(dy, first, count);
            const auto z = detail::applied_in<S>(ws, adapter.lora_A, dropped);                     // A drop(x)
            const auto t = detail::transposed_applied_in<S>(ws, scale, adapter.lora_B, dy_panel);  // s B^T dy
            add_outer_product(scale, dy_panel, z, gradient.lora_B, ws);
            add_outer_product(S(1), t, dropped, gradient.lora_A, ws);
            if (dx_panel != nullptr) {
                add_transposed_product<S, 0>(S(1), const_column_view<S>(adapter.lora_A), t, *dx_panel, ws);
            }
        });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_LORA_OF(S)                                                                                            \
    template void detail::check_lora_call<S>(const char*, const lora_adapter<S>&, const const_column_view<S>&, index, \
                                             index);                                                                  \
    template struct lora_adapter<S>;                                                                                  \
    template lora_adapter<S> make_lora<S>(index, index, const lora_options&);                                         \
    template void lora_forward<S>(const lora_adapter<S>&, S, const_column_view<S>, column_view<S>, workspace&,        \
                                  const dropout_key&);                                                                \
    template void lora_backward<S>(const lora_adapter<S>&, S, const_column_view<S>, const_column_view<S>,             \
                                   lora_gradient<S>&, column_view<S>*, workspace&, const dropout_key&);
LOWRANK_LORA_OF(float)
LOWRANK_LORA_OF(double)
#undef LOWRANK_LORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_IPP

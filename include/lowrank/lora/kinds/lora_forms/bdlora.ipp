// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_BDLORA_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_BDLORA_IPP

#include <lowrank/lora/kinds/lora_forms/bdlora.hpp>

#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/algebra/block_diagonal.hpp>
#include <lowrank/lora/train/dropout.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
low_rank<S> bdlora_adapter<S>::delta() const {
    low_rank<S> d{.left = block_diagonal(lora_B, blocks_B), .right = block_diagonal(lora_A, blocks_A)};
    scale_cols(d.left, [s = scaling()](index) { return s; });
    return d;
}

template <real S>
bdlora_adapter<S> make_bdlora(index out, index in, const bdlora_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1, "make_bdlora: out, in and r must be at least 1");
    detail::expects(0 <= options.lora_dropout && options.lora_dropout < 1,
                    "make_bdlora: lora_dropout must be in [0, 1)");
    detail::expects(options.blocks_A >= 1 && options.r % options.blocks_A == 0 && in % options.blocks_A == 0,
                    "make_bdlora: blocks_A must divide r and in");
    detail::expects(options.blocks_B >= 1 && options.r % options.blocks_B == 0 && out % options.blocks_B == 0,
                    "make_bdlora: blocks_B must divide r and out");
    bdlora_adapter<S> a{.lora_A = matrix<S>(options.r, in / options.blocks_A),
                        .blocks_A = options.blocks_A,
                        .blocks_B = options.blocks_B,
                        .lora_alpha = options.lora_alpha,
                        .use_rslora = options.use_rslora,
                        .lora_dropout = options.lora_dropout};
    a.lora_B.setZero(out, options.r / options.blocks_B);
    const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(a.lora_A.cols())));
    fill_uniform(a.lora_A, -bound, bound, philox(options.seed, options.stream));
    return a;
}

template <real S>
applied_bdlora<S>::applied_bdlora(bdlora_adapter<S> a) : adapter(std::move(a)) {
    detail::expects(adapter.blocks_A >= 1 && adapter.blocks_B >= 1 &&
                        adapter.lora_B.cols() * adapter.blocks_B == adapter.rank() &&
                        adapter.rank() % adapter.blocks_A == 0 && adapter.rows() % adapter.blocks_B == 0,
                    "bdlora_adapter: the blocks must divide the factors, and both factors have one rank");
}

template <real S>
lora_gradient<S> applied_bdlora<S>::zero_gradient() const {
    gradient g;
    g.lora_A.setZero(adapter.lora_A.rows(), adapter.lora_A.cols());
    g.lora_B.setZero(adapter.lora_B.rows(), adapter.lora_B.cols());
    return g;
}

template <real S>
void applied_bdlora<S>::add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                    workspace& ws, const dropout_key& key) const {
    if (detail::all_zero(adapter.lora_B)) {
        return;
    }
    detail::for_dropped_panels<S>(key, x, ws, [&](index first, index count, const const_column_view<S>& dropped) {
        const workspace::frame scope(ws);
        auto z = ws.take<S>(adapter.rank(), count);
        z.setZero();
        add_block_product(S(1), adapter.lora_A, adapter.blocks_A, dropped, z, ws);
        add_block_product(alpha * adapter.scaling(), adapter.lora_B, adapter.blocks_B, z,
                          detail::some_columns(y, first, count), ws);
    });
}

template <real S>
void applied_bdlora<S>::add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                               column_view<S> y, workspace& ws) const {
    const workspace::frame scope(ws);
    auto t = ws.take<S>(adapter.rank(), x.cols());
    t.setZero();
    add_block_transposed_product(alpha * adapter.scaling(), adapter.lora_B, adapter.blocks_B, x, t, ws);
    add_block_transposed_product(S(1), adapter.lora_A, adapter.blocks_A, t, y, ws);
}

template <real S>
void applied_bdlora<S>::backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                 const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                 const dropout_key& key) const {
    const S scale = alpha * adapter.scaling();
    detail::for_dropped_panels_back<S>(
        key, x, dx, ws, [&](index first, index count, const const_column_view<S>& dropped, column_view<S>* dx_panel) {
            const workspace::frame scope(ws);
            const auto dy_panel = detail::some_columns(dy, first, count);
            auto z = ws.take<S>(adapter.rank(), count);  // A drop(x)
            z.setZero();
            add_block_product(S(1), adapter.lora_A, adapter.blocks_A, dropped, z, ws);
            add_block_outer_product(scale, dy_panel, z, adapter.blocks_B, g.lora_B, ws);
            auto t = ws.take<S>(adapter.rank(), count);  // s B^T dy
            t.setZero();
            add_block_transposed_product(scale, adapter.lora_B, adapter.blocks_B, dy_panel, t, ws);
            add_block_outer_product(S(1), t, dropped, adapter.blocks_A, g.lora_A, ws);
            if (dx_panel != nullptr) {
                add_block_transposed_product(S(1), adapter.lora_A, adapter.blocks_A, t, *dx_panel, ws);
            }
        });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_BDLORA_OF(S)           \
    template struct bdlora_adapter<S>; \
    template class applied_bdlora<S>;  \
    template bdlora_adapter<S> make_bdlora<S>(index, index, const bdlora_options&);
LOWRANK_BDLORA_OF(float)
LOWRANK_BDLORA_OF(double)
#undef LOWRANK_BDLORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_BDLORA_IPP

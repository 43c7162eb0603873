// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_GRALORA_IPP
#define LOWRANK_LORA_KINDS_STRUCTURED_GRALORA_IPP

#include <lowrank/lora/kinds/structured/gralora.hpp>

#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/lora/algebra/block_diagonal.hpp>
#include <lowrank/lora/train/dropout.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <real S>
void check_gralora(const gralora_adapter<S>& a) {
    const index r = a.rank();
    expects(a.k >= 1 && r >= 1 && r % a.k == 0 && a.cols() % a.k == 0 && a.gralora_B.rows() == a.k * r,
            "gralora_adapter: k must divide the rank and the inputs, and gralora_B have k r rows");
    expects(a.gralora_B_general.cols() == a.hybrid_rank() &&
                (a.hybrid_rank() == 0 ||
                 (a.gralora_A_general.cols() == a.cols() && a.gralora_B_general.rows() == a.rows())),
            "gralora_adapter: the general factors must be hybrid_r x in and out x hybrid_r");
}

}  // namespace detail

template <real S>
low_rank<S> gralora_adapter<S>::delta() const {
    detail::check_gralora(*this);
    const index r = rank();
    const index q = r / k;
    const index in_block = cols() / k;
    const index out_block = rows() / k;
    const S s = scaling();
    low_rank<S> d;
    d.left.setZero(rows(), k * r + hybrid_rank());
    d.right.setZero(k * r + hybrid_rank(), cols());
    for (index o = 0; o < k; ++o) {
        for (index i = 0; i < k; ++i) {
            for (index t = 0; t < q; ++t) {
                const index at = o * r + i * q + t;  // row i q + t of B_o meets column o q + t of A_i
                for (index j = 0; j < out_block; ++j) {
                    d.left(o * out_block + j, at) = s * gralora_B(at, j);
                }
                for (index j = 0; j < in_block; ++j) {
                    d.right(at, i * in_block + j) = gralora_A(i * in_block + j, o * q + t);
                }
            }
        }
    }
    for (index t = 0; t < hybrid_rank(); ++t) {
        for (index j = 0; j < rows(); ++j) {
            d.left(j, k * r + t) = s * gralora_B_general(j, t);
        }
        for (index j = 0; j < cols(); ++j) {
            d.right(k * r + t, j) = gralora_A_general(t, j);
        }
    }
    return d;
}

template <real S>
void gralora_adapter<S>::add_rows(double factor, index first, column_view<double> to) const {
    detail::check_gralora(*this);
    const index r = rank();
    const index q = r / k;
    const index in_block = cols() / k;
    const index out_block = rows() / k;
    const double s = factor * scale();
    for (index c = 0; c < to.cols(); ++c) {
        const index o = (first + c) / out_block;
        const index j = (first + c) % out_block;
        for (index i = 0; i < k; ++i) {
            for (index t = 0; t < q; ++t) {
                const double b = s * static_cast<double>(gralora_B(o * r + i * q + t, j));
                for (index l = i * in_block; l < (i + 1) * in_block; ++l) {
                    to(l, c) += b * static_cast<double>(gralora_A(l, o * q + t));
                }
            }
        }
        for (index t = 0; t < hybrid_rank(); ++t) {
            const double b = s * static_cast<double>(gralora_B_general(first + c, t));
            for (index l = 0; l < cols(); ++l) {
                to(l, c) += b * static_cast<double>(gralora_A_general(t, l));
            }
        }
    }
}

template <real S>
gralora_adapter<S> make_gralora(index out, index in, const gralora_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1 && options.hybrid_r >= 0,
                    "make_gralora: out, in and r must be at least 1, hybrid_r not negative");
    detail::expects(options.k >= 1 && options.r % options.k == 0 && in % options.k == 0 && out % options.k == 0,
                    "make_gralora: k must divide r, in and out");
    detail::expects(0 <= options.dropout && options.dropout < 1, "make_gralora: dropout must be in [0, 1)");
    gralora_adapter<S> a{.gralora_A = matrix<S>(in, options.r),
                         .gralora_A_general = matrix<S>(options.hybrid_r, options.hybrid_r == 0 ? 0 : in),
                         .k = options.k,
                         .alpha = options.alpha,
                         .dropout = options.dropout};
    a.gralora_B.setZero(options.k * options.r, out / options.k);
    a.gralora_B_general.setZero(options.hybrid_r == 0 ? 0 : out, options.hybrid_r);
    const auto bound = [](index inputs) { return static_cast<S>(1 / std::sqrt(static_cast<double>(inputs))); };
    const S of_block = bound(in / options.k);
    fill_uniform(a.gralora_A, -of_block, of_block, philox(options.seed, 2 * options.stream));
    fill_uniform(a.gralora_A_general, -bound(in), bound(in), philox(options.seed, 2 * options.stream + 1));
    return a;
}

template <real S>
applied_gralora<S>::applied_gralora(gralora_adapter<S> a) : adapter(std::move(a)) {
    detail::check_gralora(adapter);
}

template <real S>
void applied_gralora<S>::exchange(const const_column_view<S>& z, column_view<S> u) const {
    const index r = adapter.rank();
    const index q = r / adapter.k;
    for (index o = 0; o < adapter.k; ++o) {
        for (index i = 0; i < adapter.k; ++i) {
            detail::some_rows(u, o * r + i * q, q) = detail::some_rows(z, i * r + o * q, q);
        }
    }
}

template <real S>
void applied_gralora<S>::add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                     workspace& ws, const dropout_key& key) const {
    const S scale = alpha * adapter.scaling();
    detail::for_dropped_panels<S>(key, x, ws, [&](index first, index count, const const_column_view<S>& dropped) {
        const workspace::frame scope(ws);
        const auto y_panel = detail::some_columns(y, first, count);
        auto z = ws.take<S>(adapter.gralora_B.rows(), count);
        auto u = ws.take<S>(adapter.gralora_B.rows(), count);
        z.setZero();
        add_block_transposed_product(S(1), adapter.gralora_A, adapter.k, dropped, z, ws);
        exchange(z, u);
        add_block_transposed_product(scale, adapter.gralora_B, adapter.k, u, y_panel, ws);
        if (adapter.hybrid_rank() != 0) {
            auto general = ws.take<S>(adapter.hybrid_rank(), count);
            general.setZero();
            lowrank::add_product<S, 0>(S(1), const_column_view<S>(adapter.gralora_A_general), dropped, general, ws);
            lowrank::add_product<S, 0>(scale, const_column_view<S>(adapter.gralora_B_general), general, y_panel, ws);
        }
    });
}

template <real S>
void applied_gralora<S>::add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                                column_view<S> y, workspace& ws) const {
    const S scale = alpha * adapter.scaling();
    const workspace::frame scope(ws);
    auto u = ws.take<S>(adapter.gralora_B.rows(), x.cols());
    auto z = ws.take<S>(adapter.gralora_B.rows(), x.cols());
    u.setZero();
    add_block_product(scale, adapter.gralora_B, adapter.k, x, u, ws);
    exchange(u, z);
    add_block_product(S(1), adapter.gralora_A, adapter.k, z, y, ws);
    if (adapter.hybrid_rank() != 0) {
        auto general = ws.take<S>(adapter.hybrid_rank(), x.cols());
        general.setZero();
        lowrank::add_transposed_product<S, 0>(scale, const_column_view<S>(adapter.gralora_B_general), x, general, ws);
        lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(adapter.gralora_A_general), general, y, ws);
    }
}

template <real S>
void applied_gralora<S>::backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                  const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                  const dropout_key& key) const {
    const S scale = alpha * adapter.scaling();
    detail::for_dropped_panels_back<S>(
        key, x, dx, ws, [&](index first, index count, const const_column_view<S>& dropped, column_view<S>* dx_panel) {
            const workspace::frame scope(ws);
            const auto dy_panel = detail::some_columns(dy, first, count);
            auto z = ws.take<S>(adapter.gralora_B.rows(), count);
            auto u = ws.take<S>(adapter.gralora_B.rows(), count);
            z.setZero();
            add_block_transposed_product(S(1), adapter.gralora_A, adapter.k, dropped, z, ws);
            exchange(z, u);
            add_block_outer_product(scale, u, dy_panel, adapter.k, g.gralora_B, ws);
            u.setZero();
            add_block_product(scale, adapter.gralora_B, adapter.k, dy_panel, u, ws);
            exchange(u, z);
            add_block_outer_product(S(1), dropped, z, adapter.k, g.gralora_A, ws);
            if (dx_panel != nullptr) {
                add_block_product(S(1), adapter.gralora_A, adapter.k, z, *dx_panel, ws);
            }
            if (adapter.hybrid_rank() != 0) {
                const const_column_view<S> a = adapter.gralora_A_general;
                auto general = ws.take<S>(adapter.hybrid_rank(), count);
                general.setZero();
                lowrank::add_product<S, 0>(S(1), a, dropped, general, ws);
                add_outer_product(scale, dy_panel, general, g.gralora_B_general, ws);
                general.setZero();
                lowrank::add_transposed_product<S, 0>(scale, const_column_view<S>(adapter.gralora_B_general), dy_panel,
                                                      general, ws);
                add_outer_product(S(1), general, dropped, g.gralora_A_general, ws);
                if (dx_panel != nullptr) {
                    lowrank::add_transposed_product<S, 0>(S(1), a, general, *dx_panel, ws);
                }
            }
        });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_GRALORA_OF(S)           \
    template struct gralora_adapter<S>; \
    template class applied_gralora<S>;  \
    template gralora_adapter<S> make_gralora<S>(index, index, const gralora_options&);
LOWRANK_GRALORA_OF(float)
LOWRANK_GRALORA_OF(double)
#undef LOWRANK_GRALORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_GRALORA_IPP

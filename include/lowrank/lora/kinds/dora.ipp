// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DORA_IPP
#define LOWRANK_LORA_KINDS_DORA_IPP

#include <lowrank/lora/kinds/dora.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/operator_columns.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/lora/adapter_kind.ipp>
#include <lowrank/lora/train/dropout.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <storage T>
vector<double> row_squares(const dense_view<const T>& w) {
    vector<double> sums;
    sums.setZero(w.rows());
    const bool by_rows = w.col_stride() == 1;
    for (index a = 0; a < (by_rows ? w.rows() : w.cols()); ++a) {
        for (index b = 0; b < (by_rows ? w.cols() : w.rows()); ++b) {
            const index i = by_rows ? a : b;
            const auto x = static_cast<double>(static_cast<compute_t<T>>(w(i, by_rows ? b : a)));
            sums(i) += x * x;
        }
    }
    return sums;
}

template <real S>
vector<double> row_squares_of_operator(operator_reference<S> map) {
    vector<double> sums;
    sums.setZero(map.rows());
    for_column_panels<S>(map, [&](index, const const_column_view<S>& columns) {
        for (index j = 0; j < columns.cols(); ++j) {
            for (index i = 0; i < columns.rows(); ++i) {
                const auto x = static_cast<double>(columns(i, j));
                sums(i) += x * x;
            }
        }
    });
    return sums;
}

template <real S>
vector<S> norms_of_adapted_rows(operator_reference<S> map, const vector<double>& base_norms2,
                                const low_rank<S>& change) {
    expects_shape("adapted_row_norms", "change", change.rows(), change.cols(), map.rows(), map.cols());
    expects_shape("adapted_row_norms", "base_norms2", base_norms2.size(), index{1}, map.rows(), index{1});
    vector<double> n2 = base_norms2;
    if (change.rank() > 0) {
        const matrix<S> cross = apply(map, copy_in<S>(transposed(change.right)));  // W R^T
        const matrix<double> lg = lowrank::product_in<double>(
            change.left, lowrank::product_in<double>(change.right, transposed(change.right)));
        for (index k = 0; k < change.rank(); ++k) {
            for (index i = 0; i < n2.size(); ++i) {
                n2(i) += (2 * static_cast<double>(cross(i, k)) + lg(i, k)) * static_cast<double>(change.left(i, k));
            }
        }
    }
    vector<S> n(n2.size());
    for (index i = 0; i < n.size(); ++i) {
        n(i) = static_cast<S>(n2(i) < 0 ? 0.0 : std::sqrt(n2(i)));
    }
    return n;
}

template <real S>
dora_adapter<S> dora_from_norms(lora_adapter<S> lora, vector<double> norms2) {
    vector<S> lengths(norms2.size());
    for (index i = 0; i < lengths.size(); ++i) {
        lengths(i) = static_cast<S>(std::sqrt(norms2(i)));
    }
    return {.lora = std::move(lora), .magnitude = std::move(lengths), .base_norms2 = std::move(norms2)};
}

template <real S>
void dora_product(operator_reference<S> base, const low_rank<S>& change, const vector<S>& scale, S alpha,
                  const_column_view<S> x, column_view<S> y, workspace& ws, const dropout_key& key) {
    const workspace::frame scope(ws);
    if (key.probability == 0) {
        auto v = ws.take<S>(base.rows(), x.cols());
        v.setZero();
        base.add_product(S(1), x, v, ws);
        change.add_product(S(1), x, v, ws);
        add_scaled_rows(alpha, scale, v, y);
        return;
    }
    base.add_product(alpha, x, y, ws);
    const auto rest = [&](index i) { return scale(i) - S(1); };
    for_dropped_panels<S>(key, x, ws, [&](index first, index count, const const_column_view<S>& dropped) {
        const workspace::frame inner(ws);
        const column_view<S> y_panel = some_columns(y, first, count);
        auto v = ws.take<S>(base.rows(), count);
        v.setZero();
        base.add_product(S(1), dropped, v, ws);
        add_scaled_rows(alpha, rest, v, y_panel);
        v.setZero();
        change.add_product(S(1), dropped, v, ws);
        add_scaled_rows(alpha, scale, v, y_panel);
    });
}

template <real S>
void dora_transposed_product(operator_reference<S> base, const low_rank<S>& change, const vector<S>& scale, S alpha,
                             const_column_view<S> x, column_view<S> y, workspace& ws) {
    const workspace::frame scope(ws);
    auto v = ws.take<S>(base.rows(), x.cols());
    v.setZero();
    add_scaled_rows(S(1), scale, x, v);
    base.add_transposed_product(alpha, v, y, ws);
    change.add_transposed_product(alpha, v, y, ws);
}

template <real S>
void dora_product_backward(operator_reference<S> base, const low_rank<S>& change, const vector<S>& scale,
                           const vector<S>& norms, const_column_view<S> x, const_column_view<S> dy,
                           delta_gradient<S>& gradient, vector<S>& magnitude_gradient, column_view<S>* dx,
                           workspace& ws, const dropout_key& key) {
    const workspace::frame scope(ws);
    const bool drops = key.probability != 0;
    if (dx != nullptr && drops) {
        base.add_transposed_product(S(1), dy, *dx, ws);
    }
    const auto rest = [&](index i) { return scale(i) - S(1); };
    auto sums = ws.take<S>(base.rows(), 1);
    sums.setZero();
    for_dropped_panels_back<S>(
        key, x, dx, ws, [&](index first, index count, const const_column_view<S>& dropped, column_view<S>* dx_panel) {
            const workspace::frame inner(ws);
            const const_column_view<S> dy_panel = some_columns(dy, first, count);
            auto v = ws.take<S>(base.rows(), count);
            v.setZero();
            base.add_product(S(1), dropped, v, ws);
            change.add_product(S(1), dropped, v, ws);
            add_row_dots(v, dy_panel, [&](index i) -> S& { return sums(i, 0); });
            v.setZero();
            add_scaled_rows(S(1), scale, dy_panel, v);
            delta_backward(change, dropped, const_column_view<S>(v), gradient, dx_panel, ws);
            if (dx_panel != nullptr) {
                if (drops) {
                    v.setZero();
                    add_scaled_rows(S(1), rest, dy_panel, v);
                }
                base.add_transposed_product(S(1), v, *dx_panel, ws);
            }
        });
    for (index i = 0; i < base.rows(); ++i) {
        if (norms(i) > S(0)) {
            magnitude_gradient(i) += sums(i, 0) / norms(i);
        }
    }
}

}  // namespace detail

template <real S>
vector<S> dora_scale(const vector<S>& magnitude, const vector<S>& norms) {
    detail::expects(magnitude.size() == norms.size(), "dora_scale: magnitude and norms must be equally long");
    vector<S> scale(norms.size());
    for (index i = 0; i < scale.size(); ++i) {
        scale(i) = norms(i) == S(0) ? S(0) : magnitude(i) / std::max(norms(i), std::numeric_limits<S>::min());
    }
    return scale;
}

template <real S>
void applied_dora<S>::refresh(operator_reference<S> base) {
    delta_ = adapter.lora.delta();
    if (adapter.base_norms2.size() != base.rows()) {
        adapter.base_norms2 = squared_row_norms_of_operator(base);
    }
    norms_ = adapted_row_norms(base, adapter.base_norms2, delta_);
    scale_ = dora_scale<S>(adapter.magnitude, norms_);
}

template <real S>
void applied_dora<S>::add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                  workspace& ws, const dropout_key& key) const {
    check();
    detail::dora_product<S>(base, delta_, scale_, alpha, x, y, ws, key);
}

template <real S>
void applied_dora<S>::add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x,
                                             column_view<S> y, workspace& ws) const {
    check();
    detail::dora_transposed_product<S>(base, delta_, scale_, alpha, x, y, ws);
}

template <real S>
void applied_dora<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                               gradient& g, column_view<S>* dx, workspace& ws, const dropout_key& key) const {
    check();
    detail::with_scaled(alpha, dy, ws, [&](const const_column_view<S>& scaled) {
        detail::dora_product_backward<S>(base, delta_, scale_, norms_, x, scaled, g.delta, g.magnitude, dx, ws, key);
    });
}

template <real S>
void applied_dora<S>::pull_back(const gradient& g, S* out) const {
    out = detail::add_entries(g.delta.right, out);
    const S scaling = adapter.lora.scaling();
    for (index i = 0; i < g.delta.left.size(); ++i) {
        *out++ += scaling * g.delta.left.data()[i];
    }
    detail::add_entries(g.magnitude, out);
}

#ifdef LOWRANK_COMPILED
template vector<double> detail::row_squares<half>(const dense_view<const half>&);
template vector<double> detail::row_squares<bfloat16>(const dense_view<const bfloat16>&);
#define LOWRANK_DORA_OF(S)                                                                                           \
    template vector<double> detail::row_squares<S>(const dense_view<const S>&);                                      \
    template vector<double> detail::row_squares_of_operator<S>(operator_reference<S>);                               \
    template vector<S> detail::norms_of_adapted_rows<S>(operator_reference<S>, const vector<double>&,                \
                                                        const low_rank<S>&);                                         \
    template dora_adapter<S> detail::dora_from_norms<S>(lora_adapter<S>, vector<double>);                            \
    template void detail::dora_product<S>(operator_reference<S>, const low_rank<S>&, const vector<S>&, S,            \
                                          const_column_view<S>, column_view<S>, workspace&, const dropout_key&);     \
    template void detail::dora_transposed_product<S>(operator_reference<S>, const low_rank<S>&, const vector<S>&, S, \
                                                     const_column_view<S>, column_view<S>, workspace&);              \
    template void detail::dora_product_backward<S>(                                                                  \
        operator_reference<S>, const low_rank<S>&, const vector<S>&, const vector<S>&, const_column_view<S>,         \
        const_column_view<S>, delta_gradient<S>&, vector<S>&, column_view<S>*, workspace&, const dropout_key&);      \
    template vector<S> dora_scale<S>(const vector<S>&, const vector<S>&);
LOWRANK_DORA_OF(float)
LOWRANK_DORA_OF(double)
#undef LOWRANK_DORA_OF
template class applied_dora<float>;
template class applied_dora<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_DORA_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_QALORA_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_QALORA_IPP

#include <lowrank/lora/kinds/lora_forms/qalora.hpp>

#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/train/dropout.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Sums of `group` rows of x, one below the other, in the workspace.
template <real S>
column_view<S> row_sums_in(workspace& ws, index group, const const_column_view<S>& x) {
    auto sums = ws.take<S>(x.rows() / group, x.cols());
    for (index j = 0; j < x.cols(); ++j) {
        for (index i = 0; i < sums.rows(); ++i) {
            S sum = 0;
            for (index k = i * group; k < (i + 1) * group; ++k) {
                sum += x(k, j);
            }
            sums(i, j) = sum;
        }
    }
    return sums;
}

/// The transpose: every row of a group of y gets the group's row of t.
template <real S>
void add_to_row_groups(index group, const const_column_view<S>& t, column_view<S> y) {
    for (index j = 0; j < y.cols(); ++j) {
        for (index i = 0; i < y.rows(); ++i) {
            y(i, j) += t(i / group, j);
        }
    }
}

}  // namespace detail

template <real S>
low_rank<S> qalora_adapter<S>::delta() const {
    low_rank<S> d = lora.delta(pooling());
    matrix<S> wide(d.right.rows(), cols());
    for (index j = 0; j < wide.cols(); ++j) {
        for (index i = 0; i < wide.rows(); ++i) {
            wide(i, j) = d.right(i, j / group_size);
        }
    }
    d.right = std::move(wide);
    return d;
}

template <real S>
qalora_adapter<S> make_qalora(index out, index in, index group_size, const lora_options& options) {
    detail::expects(group_size >= 1 && in % group_size == 0, "make_qalora: group_size must divide in");
    return {.lora = make_lora<S>(out, in / group_size, options), .group_size = group_size};
}

template <real S>
applied_qalora<S>::applied_qalora(qalora_adapter<S> a) : adapter(std::move(a)) {
    detail::expects(adapter.group_size >= 1, "qalora_adapter: group_size must be at least 1");
}

template <real S>
void applied_qalora<S>::add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                    workspace& ws, const dropout_key& key) const {
    detail::for_dropped_panels<S>(key, x, ws, [&](index first, index count, const const_column_view<S>& dropped) {
        const workspace::frame scope(ws);
        const auto sums = detail::row_sums_in<S>(ws, adapter.group_size, dropped);
        lora_forward(adapter.lora, alpha * adapter.pooling(), sums, detail::some_columns(y, first, count), ws);
    });
}

template <real S>
void applied_qalora<S>::add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                               column_view<S> y, workspace& ws) const {
    const workspace::frame scope(ws);
    auto t = ws.take<S>(adapter.lora.cols(), x.cols());
    t.setZero();
    adapter.lora.add_transposed_product(alpha * adapter.pooling(), x, t, ws);
    detail::add_to_row_groups<S>(adapter.group_size, t, y);
}

template <real S>
void applied_qalora<S>::backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                 const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                 const dropout_key& key) const {
    detail::for_dropped_panels_back<S>(
        key, x, dx, ws, [&](index first, index count, const const_column_view<S>& dropped, column_view<S>* dx_panel) {
            const workspace::frame scope(ws);
            const auto sums = detail::row_sums_in<S>(ws, adapter.group_size, dropped);
            const auto dy_panel = detail::some_columns(dy, first, count);
            const S strength = alpha * adapter.pooling();
            if (dx_panel == nullptr) {
                lora_backward(adapter.lora, strength, sums, dy_panel, g, nullptr, ws);
                return;
            }
            auto t = ws.take<S>(sums.rows(), count);
            t.setZero();
            lora_backward(adapter.lora, strength, sums, dy_panel, g, &t, ws);
            detail::add_to_row_groups<S>(adapter.group_size, t, *dx_panel);
        });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_QALORA_OF(S)           \
    template struct qalora_adapter<S>; \
    template class applied_qalora<S>;  \
    template qalora_adapter<S> make_qalora<S>(index, index, index, const lora_options&);
LOWRANK_QALORA_OF(float)
LOWRANK_QALORA_OF(double)
#undef LOWRANK_QALORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_QALORA_IPP

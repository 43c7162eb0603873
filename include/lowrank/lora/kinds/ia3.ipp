// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_IA3_IPP
#define LOWRANK_LORA_KINDS_IA3_IPP

#include <lowrank/lora/kinds/ia3.hpp>

#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <real S>
void scaled_product(operator_reference<S> base, const vector<S>* in_scale, const vector<S>* out_scale, S alpha,
                    const_column_view<S> x, column_view<S> y, workspace& ws, bool transposed) {
    // With `transposed`, in_scale is that of the outputs, which come in.
    const auto given = [](const vector<S>* scale) { return scale != nullptr && scale->size() > 0; };
    expects((!given(in_scale) || in_scale->size() == x.rows()) && (!given(out_scale) || out_scale->size() == y.rows()),
            "scaled_operator: a scale must be empty or have one entry per row or column of the base");
    const workspace::frame scope(ws);
    auto in = ws.take<S>(given(in_scale) ? x.rows() : 0, x.cols());
    if (given(in_scale)) {
        in.setZero();
        add_scaled_rows(S(1), *in_scale, x, in);
    }
    const const_column_view<S> from = given(in_scale) ? const_column_view<S>(in) : x;
    const auto multiply = [&](S factor, const column_view<S>& to) {
        if (transposed) {
            base.add_transposed_product(factor, from, to, ws);
        } else {
            base.add_product(factor, from, to, ws);
        }
    };
    if (!given(out_scale)) {
        multiply(alpha, y);
        return;
    }
    auto out = ws.take<S>(y.rows(), y.cols());
    out.setZero();
    multiply(alpha, out);
    add_scaled_rows(S(1), *out_scale, out, y);
}

}  // namespace detail

template <real S>
ia3_adapter<S> make_ia3(index out, index in, bool is_feedforward) {
    detail::expects(out >= 0 && in >= 0, "make_ia3: out and in must not be negative");
    ia3_adapter<S> a{.is_feedforward = is_feedforward, .out = out, .in = in};
    a.ia3_l.setOnes(is_feedforward ? in : out);
    return a;
}

template <real S>
void output_scale_backward(std::type_identity_t<operator_reference<S>> base, const vector<S>& bias,
                           std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                           vector<S>& gradient, workspace& ws) {
    detail::expects_shape("output_scale_backward", "dy", dy.rows(), dy.cols(), base.rows(), x.cols());
    detail::expects(gradient.size() == base.rows() && (bias.size() == 0 || bias.size() == base.rows()),
                    "output_scale_backward: gradient and bias need one entry per output");
    const workspace::frame scope(ws);
    auto y = ws.take<S>(base.rows(), x.cols());
    y.setZero();
    base.add_product(S(1), x, y, ws);
    for (index j = 0; j < y.cols() && bias.size() > 0; ++j) {
        detail::axpy(S(1), bias.data(), y.data() + j * y.rows(), y.rows());
    }
    add_row_dots(y, dy, gradient);
}

template <real S>
void input_scale_backward(std::type_identity_t<operator_reference<S>> base,
                          std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                          vector<S>& gradient, workspace& ws) {
    detail::expects_shape("input_scale_backward", "dy", dy.rows(), dy.cols(), base.rows(), x.cols());
    detail::expects(gradient.size() == base.cols(), "input_scale_backward: gradient needs one entry per input");
    const workspace::frame scope(ws);
    auto back = ws.take<S>(base.cols(), x.cols());
    back.setZero();
    base.add_transposed_product(S(1), dy, back, ws);
    add_row_dots(back, x, gradient);
}

template <real S>
void applied_ia3<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                              gradient& g, column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
    detail::with_scaled(alpha, dy, ws, [&](const const_column_view<S>& scaled) {
        if (adapter.is_feedforward) {
            input_scale_backward<S>(base, x, scaled, g.ia3_l, ws);
        } else {
            output_scale_backward<S>(base, vector<S>(), x, scaled, g.ia3_l, ws);
        }
        if (dx != nullptr) {
            add_transposed_product(base, S(1), scaled, *dx, ws);
        }
    });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_IA3_OF(S)                                                                                    \
    template void detail::scaled_product<S>(operator_reference<S>, const vector<S>*, const vector<S>*, S,    \
                                            const_column_view<S>, column_view<S>, workspace&, bool);         \
    template ia3_adapter<S> make_ia3<S>(index, index, bool);                                                 \
    template void output_scale_backward<S>(operator_reference<S>, const vector<S>&, const_column_view<S>,    \
                                           const_column_view<S>, vector<S>&, workspace&);                    \
    template void input_scale_backward<S>(operator_reference<S>, const_column_view<S>, const_column_view<S>, \
                                          vector<S>&, workspace&);
LOWRANK_IA3_OF(float)
LOWRANK_IA3_OF(double)
#undef LOWRANK_IA3_OF
template class applied_ia3<float>;
template class applied_ia3<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_IA3_IPP

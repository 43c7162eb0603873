// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_CONV_LORA_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_CONV_LORA_IPP

#include <lowrank/lora/kinds/lora_forms/conv_lora.hpp>

#include <algorithm>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void conv_lora_adapter<S>::check() const {
    detail::expects(lora_A.rows() == lora_B.cols() && lora_B.rows() * lora_A.cols() == out * in,
                    "conv_lora_adapter: B A must have as many entries as the weight");
}

template <real S>
row_matrix<S> conv_lora_adapter<S>::dense_delta() const {
    check();
    row_matrix<S> d;
    d.setZero(out, in);
    add_product(scaling(), lora_B, lora_A, dense_view<S>(d.data(), lora_B.rows(), lora_A.cols(), lora_A.cols(), 1));
    return d;
}

template <real S>
conv_lora_adapter<S> conv_lora_adapter<S>::pull_back(const row_matrix<S>& weight_gradient) const {
    check();
    detail::expects_shape("conv_lora_adapter::pull_back", "weight_gradient", weight_gradient.rows(),
                          weight_gradient.cols(), out, in);
    const dense_view<const S> g(weight_gradient.data(), lora_B.rows(), lora_A.cols(), lora_A.cols(), 1);
    conv_lora_adapter d = detail::with_zero_parameters(*this);
    add_product(scaling(), transposed(lora_B), g, d.lora_A);
    add_product(scaling(), g, transposed(lora_A), d.lora_B);
    return d;
}

template <real S>
void detail::dense_rows<S>::add_rows(double factor, index first, column_view<double> to) const {
    for (index i = 0; i < to.cols(); ++i) {
        for (index j = 0; j < to.rows(); ++j) {
            to(j, i) += factor * static_cast<double>(d(first + i, j));
        }
    }
}

template <real S>
void applied_conv_lora<S>::add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                       column_view<S> y, workspace& ws, const dropout_key& /*key*/) const {
    lowrank::add_product<S, 1>(alpha, const_weight_view<S>(delta_), x, y, ws);
}

template <real S>
void applied_conv_lora<S>::add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x,
                                                  column_view<S> y, workspace& ws) const {
    lowrank::add_transposed_product<S, 1>(alpha, const_weight_view<S>(delta_), x, y, ws);
}

template <real S>
void applied_conv_lora<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x,
                                    const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                    const dropout_key& /*key*/) const {
    add_outer_product(alpha, dy, x, g, ws);
    if (dx != nullptr) {
        add_transposed_product(base, alpha, dy, *dx, ws);
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_CONV_LORA_OF(S) template struct conv_lora_adapter<S>;
LOWRANK_CONV_LORA_OF(float)
LOWRANK_CONV_LORA_OF(double)
#undef LOWRANK_CONV_LORA_OF
template struct detail::dense_rows<float>;
template struct detail::dense_rows<double>;
template class applied_conv_lora<float>;
template class applied_conv_lora<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_CONV_LORA_IPP

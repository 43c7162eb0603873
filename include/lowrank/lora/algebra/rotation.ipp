// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_ROTATION_IPP
#define LOWRANK_LORA_ALGEBRA_ROTATION_IPP

#include <lowrank/lora/algebra/rotation.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>
#include <lowrank/lora/algebra/block_rotation.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// T = W^T (diag(s) dY), the gradient of the rotated inputs.
template <real S>
void back_through_base(operator_reference<S> base, const vector<S>& output_scale, const const_column_view<S>& dy,
                       column_view<S>& t, workspace& ws) {
    t.setZero();
    if (output_scale.size() == 0) {
        base.add_transposed_product(S(1), dy, t, ws);
        return;
    }
    const workspace::frame scope(ws);
    auto v = ws.take<S>(base.rows(), dy.cols());
    v.setZero();
    add_scaled_rows(S(1), output_scale, dy, v);
    base.add_transposed_product(S(1), v, t, ws);
}

}  // namespace detail

template <input_rotation R>
void add_rotated_product(operator_reference<typename R::scalar> base, const R& rotation,
                         const vector<typename R::scalar>& output_scale, typename R::scalar alpha,
                         const_column_view<typename R::scalar> x, column_view<typename R::scalar> y, workspace& ws) {
    using S = typename R::scalar;
    detail::check_rotated(base.rows(), base.cols(), rotation.cols(), output_scale.size());
    detail::expects_shape("add_rotated_product", "x", x.rows(), x.cols(), base.cols(), y.cols());
    detail::expects_shape("add_rotated_product", "y", y.rows(), y.cols(), base.rows(), x.cols());
    const workspace::frame scope(ws);
    auto z = ws.take<S>(x.rows(), x.cols());
    z.setZero();
    rotation.add_product(S(1), x, z, ws);
    if (output_scale.size() == 0) {
        base.add_product(alpha, z, y, ws);
        return;
    }
    auto v = ws.take<S>(y.rows(), x.cols());
    v.setZero();
    base.add_product(alpha, z, v, ws);
    add_scaled_rows(S(1), output_scale, v, y);
}

template <input_rotation R>
void add_rotated_transposed_product(operator_reference<typename R::scalar> base, const R& rotation,
                                    const vector<typename R::scalar>& output_scale, typename R::scalar alpha,
                                    const_column_view<typename R::scalar> x, column_view<typename R::scalar> y,
                                    workspace& ws) {
    using S = typename R::scalar;
    detail::check_rotated(base.rows(), base.cols(), rotation.cols(), output_scale.size());
    detail::expects_shape("add_rotated_transposed_product", "x", x.rows(), x.cols(), base.rows(), y.cols());
    detail::expects_shape("add_rotated_transposed_product", "y", y.rows(), y.cols(), base.cols(), x.cols());
    const workspace::frame scope(ws);
    auto t = ws.take<S>(y.rows(), x.cols());
    detail::back_through_base<S>(base, output_scale, x, t, ws);
    rotation.add_transposed_product(alpha, t, y, ws);
}

template <input_rotation R>
void rotated_backward(operator_reference<typename R::scalar> base, const R& rotation,
                      const vector<typename R::scalar>& output_scale, const_column_view<typename R::scalar> x,
                      const_column_view<typename R::scalar> dy, rotated_gradient<R>& gradient,
                      column_view<typename R::scalar>* dx, workspace& ws) {
    using S = typename R::scalar;
    detail::check_rotated(base.rows(), base.cols(), rotation.cols(), output_scale.size());
    detail::expects_shape("rotated_backward", "x", x.rows(), x.cols(), base.cols(), dy.cols());
    detail::expects_shape("rotated_backward", "dy", dy.rows(), dy.cols(), base.rows(), x.cols());
    detail::expects(gradient.output_scale.size() == output_scale.size(),
                    "rotated_backward: the gradient was made for another layer");
    if (dx != nullptr) {
        detail::expects_shape("rotated_backward", "dx", dx->rows(), dx->cols(), x.rows(), x.cols());
    }
    const workspace::frame scope(ws);
    auto t = ws.take<S>(x.rows(), x.cols());
    if (output_scale.size() > 0) {
        t.setZero();
        rotation.add_product(S(1), x, t, ws);
        const workspace::frame inner(ws);
        auto y = ws.take<S>(dy.rows(), x.cols());
        y.setZero();
        base.add_product(S(1), t, y, ws);
        add_row_dots(y, dy, gradient.output_scale);
    }
    detail::back_through_base<S>(base, output_scale, dy, t, ws);
    rotation.backward(x, t, gradient.rotation, dx, ws);
}

namespace detail {

/// Every row w becomes R^T w, or R w: W R, or W R^T.
template <input_rotation R>
void turn_rows(const R& rotation, bool transpose, column_view<double> rows, workspace& ws) {
    const workspace::frame scope(ws);
    auto from = ws.take<double>(rows.rows(), rows.cols());
    from.setZero();
    add_scaled(1.0, rows, from);
    rows.setZero();
    if (transpose) {
        rotation.add_transposed_product(1.0, from, rows, ws);
    } else {
        rotation.add_product(1.0, from, rows, ws);
    }
}

}  // namespace detail

template <input_rotation R>
void row_rotation<R>::forward(index first, column_view<double> rows, workspace& ws) const {
    detail::turn_rows(rotation_, true, rows, ws);
    for (index r = 0; r < rows.cols() && scale_.size() > 0; ++r) {
        for (index j = 0; j < rows.rows(); ++j) {
            rows(j, r) *= scale_(first + r);
        }
    }
}

template <input_rotation R>
void row_rotation<R>::backward(index first, column_view<double> rows, workspace& ws) const {
    for (index r = 0; r < rows.cols() && scale_.size() > 0; ++r) {
        const double s = scale_(first + r);
        for (index j = 0; j < rows.rows(); ++j) {
            rows(j, r) *= s == 0 ? 0.0 : 1 / s;
        }
    }
    detail::turn_rows(rotation_, false, rows, ws);
}

template <rotating_adapter A>
void applied_rotation<A>::backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                                   gradient& g, column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
    detail::with_scaled(alpha, dy, ws, [&](const const_column_view<S>& scaled) {
        rotated_backward(base, rotation_, scale_, x, scaled, g, dx, ws);
    });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ROTATION_OF(R)                                                                                         \
    template void add_rotated_product<R>(operator_reference<R::scalar>, const R&, const vector<R::scalar>&, R::scalar, \
                                         const_column_view<R::scalar>, column_view<R::scalar>, workspace&);            \
    template void add_rotated_transposed_product<R>(operator_reference<R::scalar>, const R&, const vector<R::scalar>&, \
                                                    R::scalar, const_column_view<R::scalar>, column_view<R::scalar>,   \
                                                    workspace&);                                                       \
    template void rotated_backward<R>(operator_reference<R::scalar>, const R&, const vector<R::scalar>&,               \
                                      const_column_view<R::scalar>, const_column_view<R::scalar>,                      \
                                      rotated_gradient<R>&, column_view<R::scalar>*, workspace&);
LOWRANK_ROTATION_OF(block_rotation<float>)
LOWRANK_ROTATION_OF(block_rotation<double>)
template void row_rotation<block_rotation<double>>::forward(index, column_view<double>, workspace&) const;
template void row_rotation<block_rotation<double>>::backward(index, column_view<double>, workspace&) const;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_ROTATION_IPP

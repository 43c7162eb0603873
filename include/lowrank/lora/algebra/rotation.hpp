// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_ROTATION_HPP
#define LOWRANK_LORA_ALGEBRA_ROTATION_HPP

/// \file
/// Adapters that turn the inputs of a layer: y = diag(s) W (R x), with R orthogonal (nearly, for series) and trained.
///
///     const auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), adapter);   // a linear_operator
///     auto y = lowrank::apply(layer, x);
///     auto g = lowrank::zero_gradient(layer);
///     lowrank::rotated_backward(layer, x, dy, g, &dx, ws);       // the same for OFT, BOFT and HRA
///     auto gradient = adapter.pull_back(g);                      // each adapter's own parameters
///
/// The base is any linear operator and is never changed. Merging into a dense weight is in merge_transformed.hpp.

#include <concepts>
#include <type_traits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A square linear operator R with a gradient of its own type: `zero_gradient()`, and `backward(x, dz, g, dx, ws)` that adds
/// the gradient of a loss through z = R x to `g` and, where `dx` is not null, R^T dz to `*dx`. `cast<double>()` gives
/// the same map in double.
template <class R>
concept input_rotation = linear_operator<R> &&
    requires(const R& r, R& g, const_column_view<typename R::scalar> x, const_column_view<typename R::scalar> dz,
             column_view<typename R::scalar>* dx, workspace& ws) {
    { r.zero_gradient() } -> std::same_as<R>;
    r.backward(x, dz, g, dx, ws);
    r.template cast<double>();
};

/// Gradients of a rotated layer: of the rotation, and of the scale of the outputs (empty if the layer has none).
template <input_rotation R>
struct rotated_gradient {
    R rotation;
    vector<typename R::scalar> output_scale = {};
};

namespace detail {

/// The rotation has the size of the inputs, the scale that of the outputs.
template <class Base, class R, real S>
void check_rotated(const Base& base, const R& rotation, const vector<S>& output_scale) {
    expects_shape("rotated_linear", "rotation", rotation.rows(), rotation.cols(), index{base.cols()},
                  index{base.cols()});
    expects(output_scale.size() == 0 || output_scale.size() == base.rows(),
            "rotated_linear: output_scale must be empty or have one entry per output");
}

/// T = W^T (diag(s) dY), the gradient of the rotated inputs.
template <linear_operator Base, real S>
void back_through_base(const Base& base, const vector<S>& output_scale, const_column_view<S> dy, column_view<S> t,
                       workspace& ws) {
    t.setZero();
    if (output_scale.size() == 0) {
        base.add_transposed_product(S(1), dy, t, ws);
        return;
    }
    const workspace::frame scope(ws);
    auto v = ws.take<S>(base.rows(), dy.cols());
    v.noalias() = output_scale.asDiagonal() * dy;
    base.add_transposed_product(S(1), v, t, ws);
}

}  // namespace detail

/// Y += alpha diag(s) W (R X) for a base and a rotation that are only borrowed. An empty scale is all ones.
template <linear_operator Base, input_rotation R, real S = typename R::scalar>
void add_rotated_product(const Base& base, const R& rotation, const vector<S>& output_scale, S alpha,
                         std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                         workspace& ws) {
    detail::check_rotated(base, rotation, output_scale);
    detail::expects_shape("add_rotated_product", "x", x.rows(), x.cols(), index{base.cols()}, y.cols());
    detail::expects_shape("add_rotated_product", "y", y.rows(), y.cols(), index{base.rows()}, x.cols());
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
    y.noalias() += output_scale.asDiagonal() * v;
}

/// Y += alpha R^T (W^T (diag(s) X)).
template <linear_operator Base, input_rotation R, real S = typename R::scalar>
void add_rotated_transposed_product(const Base& base, const R& rotation, const vector<S>& output_scale, S alpha,
                                    std::type_identity_t<const_column_view<S>> x,
                                    std::type_identity_t<column_view<S>> y, workspace& ws) {
    detail::check_rotated(base, rotation, output_scale);
    detail::expects_shape("add_rotated_transposed_product", "x", x.rows(), x.cols(), index{base.rows()}, y.cols());
    detail::expects_shape("add_rotated_transposed_product", "y", y.rows(), y.cols(), index{base.cols()}, x.cols());
    const workspace::frame scope(ws);
    auto t = ws.take<S>(y.rows(), x.cols());
    detail::back_through_base<Base, S>(base, output_scale, x, t, ws);
    rotation.add_transposed_product(alpha, t, y, ws);
}

/// Adds the gradients of a loss through Y += diag(s) W (R X), given dY:
///
///     T = W^T diag(s) dY     dR += T X^T (in R's own parameters)     ds += rowsum(dY o W R X)     dX += R^T T
///
/// `dx` may be null. Nothing is stored between forward and backward.
/// \pre  Shapes agree; dX overlaps neither X nor dY.
/// \cost One transposed product with the base, one more product where the outputs are scaled, and those of R.
template <linear_operator Base, input_rotation R, real S = typename R::scalar>
void rotated_backward(const Base& base, const R& rotation, const vector<S>& output_scale,
                      std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                      rotated_gradient<R>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws) {
    detail::check_rotated(base, rotation, output_scale);
    detail::expects_shape("rotated_backward", "x", x.rows(), x.cols(), index{base.cols()}, dy.cols());
    detail::expects_shape("rotated_backward", "dy", dy.rows(), dy.cols(), index{base.rows()}, x.cols());
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
        gradient.output_scale += y.cwiseProduct(dy).rowwise().sum();
    }
    detail::back_through_base<Base, S>(base, output_scale, dy, t, ws);
    rotation.backward(x, t, gradient.rotation, dx, ws);
}

/// The linear operator diag(output_scale) base R. An empty scale is all ones.
template <input_rotation R>
struct rotated_linear {
    using scalar = typename R::scalar;

    any_operator<scalar> base;
    R rotation;
    vector<scalar> output_scale = {};

    [[nodiscard]] index rows() const { return base.rows(); }
    [[nodiscard]] index cols() const { return base.cols(); }

    void add_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        add_rotated_product(base, rotation, output_scale, alpha, x, y, ws);
    }
    void add_transposed_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        add_rotated_transposed_product(base, rotation, output_scale, alpha, x, y, ws);
    }
};

/// Gradients of the shapes of `layer`, all zero.
template <input_rotation R>
[[nodiscard]] rotated_gradient<R> zero_gradient(const rotated_linear<R>& layer) {
    return {.rotation = layer.rotation.zero_gradient(),
            .output_scale = vector<typename R::scalar>::Zero(layer.output_scale.size())};
}

/// The gradients through a whole layer.
template <input_rotation R>
void rotated_backward(const rotated_linear<R>& layer, std::type_identity_t<const_column_view<typename R::scalar>> x,
                      std::type_identity_t<const_column_view<typename R::scalar>> dy, rotated_gradient<R>& gradient,
                      std::type_identity_t<column_view<typename R::scalar>>* dx, workspace& ws) {
    rotated_backward(layer.base, layer.rotation, layer.output_scale, x, dy, gradient, dx, ws);
}

/// An adapter whose change is a rotation of the inputs: `rotation()` and `output_scale()` (empty: ones) from its
/// parameters, and `pull_back(g)` from a `rotated_gradient` to the parameters, as a value of the adapter's own type.
template <class A>
concept rotating_adapter = input_rotation<decltype(std::declval<const A&>().rotation())> &&
    requires(const A& a, const rotated_gradient<decltype(a.rotation())>& g) {
    { a.output_scale() } -> std::convertible_to<vector<typename A::scalar>>;
    { a.pull_back(g) } -> std::same_as<A>;
};

/// The layer diag(s) base R of an adapter. \cost Forms the rotation from the parameters: once per optimizer step.
template <rotating_adapter A>
[[nodiscard]] auto rotate(any_operator<typename A::scalar> base, const A& adapter) {
    rotated_linear<decltype(adapter.rotation())> layer{
        .base = std::move(base), .rotation = adapter.rotation(), .output_scale = adapter.output_scale()};
    detail::check_rotated(layer.base, layer.rotation, layer.output_scale);
    return layer;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_ROTATION_HPP

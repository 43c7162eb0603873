// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_ROTATION_HPP
#define LOWRANK_LORA_ALGEBRA_ROTATION_HPP

/// \file
/// Adapters that turn the inputs of a layer: y = diag(s) W (R x), with R orthogonal (nearly, for series) and trained.
///
///     const auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), rotating);
///     auto y = lowrank::apply(layer, x);                         // a linear operator: W (R x)
///     auto g = lowrank::zero_gradient(layer);
///     lowrank::rotated_backward(layer, x, dy, g, &dx, ws);       // whatever the rotation is
///     auto gradient = rotating.pull_back(g);                     // each adapter's own parameters
///
/// The base is any linear operator and is never changed. Merging into a dense weight is in merge_transformed.hpp.

#include <concepts>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>

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

namespace detail {

/// The rotation has the size of the inputs, the scale that of the outputs.
inline void check_rotated(index out, index in, index rotated, index scales) {
    expects_shape("rotated_linear", "rotation", rotated, rotated, in, in);
    expects(scales == 0 || scales == out, "rotated_linear: output_scale must be empty or have one entry per output");
}

}  // namespace detail

/// Gradients of a rotated layer: of the rotation, and of the scale of the outputs (empty if the layer has none).
template <input_rotation R>
struct rotated_gradient {
    R rotation;
    vector<typename R::scalar> output_scale = {};
};

/// Y += alpha diag(s) W (R X) for a base and a rotation that are only borrowed. An empty scale is all ones.
template <input_rotation R>
void add_rotated_product(operator_reference<typename R::scalar> base, const R& rotation,
                         const vector<typename R::scalar>& output_scale, typename R::scalar alpha,
                         const_column_view<typename R::scalar> x, column_view<typename R::scalar> y, workspace& ws);

/// Y += alpha R^T (W^T (diag(s) X)).
template <input_rotation R>
void add_rotated_transposed_product(operator_reference<typename R::scalar> base, const R& rotation,
                                    const vector<typename R::scalar>& output_scale, typename R::scalar alpha,
                                    const_column_view<typename R::scalar> x, column_view<typename R::scalar> y,
                                    workspace& ws);

/// Adds the gradients of a loss through Y += diag(s) W (R X), given dY:
///
///     T = W^T diag(s) dY     dR += T X^T (in R's own parameters)     ds += rowsum(dY o W R X)     dX += R^T T
///
/// `dx` may be null. Nothing is stored between forward and backward.
/// \pre  Shapes agree; dX overlaps neither X nor dY.
/// \cost One transposed product with the base, one more product where the outputs are scaled, and those of R.
template <input_rotation R>
void rotated_backward(operator_reference<typename R::scalar> base, const R& rotation,
                      const vector<typename R::scalar>& output_scale, const_column_view<typename R::scalar> x,
                      const_column_view<typename R::scalar> dy, rotated_gradient<R>& gradient,
                      column_view<typename R::scalar>* dx, workspace& ws);

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
    rotated_gradient<R> g{.rotation = layer.rotation.zero_gradient()};
    g.output_scale.setZero(layer.output_scale.size());
    return g;
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
    detail::check_rotated(layer.base.rows(), layer.base.cols(), layer.rotation.cols(), layer.output_scale.size());
    return layer;
}

/// The row transform W -> diag(s) W R, and W -> diag(1 / s) W R^T as its inverse. Holds the rotation in double.
template <input_rotation R>
class row_rotation {
public:
    template <input_rotation Q>
    explicit row_rotation(const rotated_linear<Q>& layer)
        : rotation_(layer.rotation.template cast<double>()),
          scale_(head_in<double>(layer.output_scale, layer.output_scale.size())),
          out_(layer.rows()) {}
    /// Without a scale: for any number of outputs.
    template <input_rotation Q>
    row_rotation(const Q& rotation, const vector<typename Q::scalar>& output_scale)
        : rotation_(rotation.template cast<double>()),
          scale_(head_in<double>(output_scale, output_scale.size())),
          out_(output_scale.size()) {}

    [[nodiscard]] bool fits(index out, index in) const { return (out == out_ || out_ == 0) && in == rotation_.cols(); }

    void forward(index first, column_view<double> rows, workspace& ws) const;
    void backward(index first, column_view<double> rows, workspace& ws) const;

private:
    R rotation_;
    vector<double> scale_;
    index out_;
};
template <input_rotation Q>
row_rotation(const rotated_linear<Q>&)
    -> row_rotation<std::remove_cvref_t<decltype(std::declval<const Q&>().template cast<double>())>>;
template <input_rotation Q>
row_rotation(const Q&, const vector<typename Q::scalar>&)
    -> row_rotation<std::remove_cvref_t<decltype(std::declval<const Q&>().template cast<double>())>>;

/// Any rotating adapter: y += diag(s) W (R x).
template <rotating_adapter A>
class applied_rotation {
    using rotation_type = decltype(std::declval<const A&>().rotation());

public:
    using scalar = typename A::scalar;
    using S = scalar;
    static constexpr bool additive = false;
    using gradient = rotated_gradient<rotation_type>;

    explicit applied_rotation(A a)
        : adapter(std::move(a)), rotation_(adapter.rotation()), scale_(adapter.output_scale()) {}

    A adapter;

    /// 0 before the first refresh of an adapter that knows its inputs only.
    [[nodiscard]] index rows() const { return scale_.size() > 0 ? scale_.size() : rows_; }
    [[nodiscard]] index cols() const { return rotation_.cols(); }
    void refresh(operator_reference<S> base) {
        rows_ = base.rows();
        rotation_ = adapter.rotation();
        scale_ = adapter.output_scale();
    }

    [[nodiscard]] gradient zero_gradient() const {
        gradient g{.rotation = rotation_.zero_gradient()};
        g.output_scale.setZero(scale_.size());
        return g;
    }
    static std::vector<std::span<S>> spans(gradient& g) {
        std::vector<std::span<S>> all = rotation_spans(g.rotation);
        all.push_back(detail::entries(g.output_scale));
        return all;
    }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        add_rotated_product(base, rotation_, scale_, alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        add_rotated_transposed_product(base, rotation_, scale_, alpha, x, y, ws);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(adapter.pull_back(g), out); }
    /// Of a rotation without a scale: for any number of outputs.
    [[nodiscard]] weight_change<S> change() const { return row_change{row_rotation(rotation_, scale_)}; }

private:
    rotation_type rotation_;
    vector<S> scale_;
    index rows_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/algebra/rotation.ipp>
#endif

#endif  // LOWRANK_LORA_ALGEBRA_ROTATION_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DORA_HPP
#define LOWRANK_LORA_KINDS_DORA_HPP

/// \file
/// DoRA: direction from W + change, length from a magnitude of its own: W' = diag(m / n) (W + D), n_i = ||row i of W +
/// D||.
///
///     auto n = lowrank::adapted_row_norms(w, lowrank::squared_row_norms(w), adapter.delta());   // never forms W + D
///     lowrank::dora_linear<float> layer{.base = lowrank::as_operator(w), .change = adapter.delta(),
///                                       .scale = lowrank::dora_scale(magnitude, n)};
///     auto y = lowrank::apply(layer, x);
///
/// Liu et al., arXiv 2402.09353. The norms come from the factors, n^2 = ||W||^2_row + 2 rowsum((W R^T) o L) +
/// rowsum((L (R R^T)) o L), at r / in of the cost of the dense sum. Like PEFT, the backward pass treats n as a
/// constant. The norm is always that of the ORIGINAL weight plus this adapter's change, so several DoRAs do not depend
/// on order.

#include <span>
#include <string_view>
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
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <storage T>
[[nodiscard]] vector<double> row_squares(const dense_view<const T>& w);
template <real S>
[[nodiscard]] vector<double> row_squares_of_operator(operator_reference<S> map);
template <real S>
[[nodiscard]] vector<S> norms_of_adapted_rows(operator_reference<S> map, const vector<double>& base_norms2,
                                              const low_rank<S>& change);

}  // namespace detail

/// ||row i of W||^2 for every row, in double. Needed once per base. \cost One pass over W.
template <detail::dense_weight W>
[[nodiscard]] vector<double> squared_row_norms(const W& w) {
    return detail::row_squares<typename W::Scalar>(w);
}

/// The same of a base that can only be multiplied with. \cost One product with the identity, 64 columns at a time.
template <linear_operator M>
[[nodiscard]] vector<double> squared_row_norms_of_operator(const M& map) {
    return detail::row_squares_of_operator<typename M::scalar>(map);
}

/// ||row i of W + L R|| for every row, from ||W||^2_row and the factors; never forms the sum.
///
/// \pre  `base_norms2` is `squared_row_norms` of the base, or the row norms it stands for.
/// \cost One product W R^T (2 r m n flops), and r^2 (m + n).
/// \note Where the change nearly cancels a row, digits are lost as in any difference of squares: the error of n^2 is a
///       few eps of ||W||^2 + ||D||^2.
template <operator_like W>
[[nodiscard]] vector<operator_scalar<W>> adapted_row_norms(const W& w, const vector<double>& base_norms2,
                                                           const low_rank<operator_scalar<W>>& change) {
    const auto& map = as_operator(w);
    return detail::norms_of_adapted_rows<operator_scalar<W>>(map, base_norms2, change);
}

/// m / n, with 0 where the norm is 0 (the row is zero whatever its magnitude). A norm that is NaN stays one.
template <real S>
[[nodiscard]] vector<S> dora_scale(const vector<S>& magnitude, const vector<S>& norms);

/// What DoRA trains: LoRA factors, and the length of each output.
template <real S>
struct dora_adapter {
    using scalar = S;

    lora_adapter<S> lora = {};
    vector<S> magnitude = {};  ///< out
    /// `squared_row_norms` of the base it will be used on. Empty: whoever needs them multiplies the base with the
    /// identity.
    vector<double> base_norms2 = {};
};

namespace detail {

/// With the row norms of a base as magnitude.
template <real S>
[[nodiscard]] dora_adapter<S> dora_from_norms(lora_adapter<S> lora, vector<double> norms2);

/// Y += alpha diag(scale) (W + L R) X; in training, of X that is dropped out on its way through all but W X itself:
/// alpha (W X + diag(scale - 1) W drop(X) + diag(scale) L R drop(X)).
template <real S>
void dora_product(operator_reference<S> base, const low_rank<S>& change, const vector<S>& scale, S alpha,
                  const_column_view<S> x, column_view<S> y, workspace& ws, const dropout_key& key = {});

/// Y += alpha (W + L R)^T diag(scale) X.
template <real S>
void dora_transposed_product(operator_reference<S> base, const low_rank<S>& change, const vector<S>& scale, S alpha,
                             const_column_view<S> x, column_view<S> y, workspace& ws);

/// The backward pass, with n held constant. `norms` are the n that `scale` was made with.
template <real S>
void dora_product_backward(operator_reference<S> base, const low_rank<S>& change, const vector<S>& scale,
                           const vector<S>& norms, const_column_view<S> x, const_column_view<S> dy,
                           delta_gradient<S>& gradient, vector<S>& magnitude_gradient, column_view<S>* dx,
                           workspace& ws, const dropout_key& key = {});

}  // namespace detail

/// A new adapter for the base `w`: its row norms as magnitude, so that it changes nothing yet.
template <detail::dense_weight W>
[[nodiscard]] dora_adapter<compute_t<typename W::Scalar>> make_dora(const W& w, const lora_options& options = {}) {
    using S = compute_t<typename W::Scalar>;
    return detail::dora_from_norms<S>(make_lora<S>(w.rows(), w.cols(), options), squared_row_norms(w));
}

/// The linear operator diag(scale) (base + change): a layer under one DoRA adapter.
///
/// Merged, it is `merge(w, change, {.row_scale = scale})` (column_scale for transposed storage).
template <real S>
struct dora_linear {
    using scalar = S;

    any_operator<S> base;
    low_rank<S> change;
    vector<S> scale;  ///< m / n

    [[nodiscard]] index rows() const { return base.rows(); }
    [[nodiscard]] index cols() const { return base.cols(); }

    /// Y += alpha diag(scale) (W X + L (R X)).
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("dora_linear::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        detail::dora_product<S>(base, change, scale, alpha, x, y, ws);
    }
    /// Y += alpha (base + change)^T (diag(scale) X).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("dora_linear::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::dora_transposed_product<S>(base, change, scale, alpha, x, y, ws);
    }
};

/// Adds the gradients of a loss through Y += diag(m / n) (W + L R) X with n held constant, given dY:
///
///     dm += rowsum(dY o (W + L R) X) / n     dL, dR as for a change whose dY is diag(m / n) dY
///     dX += (W + L R)^T diag(m / n) dY
///
/// `norms` are the n that `layer.scale` was made with; `dx` may be null.
template <real S>
void dora_backward(const dora_linear<S>& layer, std::type_identity_t<const vector<S>&> norms,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                   delta_gradient<S>& gradient, vector<S>& magnitude_gradient, std::type_identity_t<column_view<S>>* dx,
                   workspace& ws) {
    detail::expects_shape("dora_backward", "dy", dy.rows(), dy.cols(), layer.rows(), x.cols());
    detail::expects(norms.size() == layer.rows() && magnitude_gradient.size() == layer.rows(),
                    "dora_backward: norms and magnitude_gradient need one entry per row");
    detail::dora_product_backward<S>(layer.base, layer.change, layer.scale, norms, x, dy, gradient, magnitude_gradient,
                                     dx, ws);
}

/// DoRA keeps its factors, the norms of the adapted rows and the scale they give.
template <real S>
class applied_dora {
public:
    using scalar = S;
    static constexpr bool additive = false;
    struct gradient {
        delta_gradient<S> delta = {};
        vector<S> magnitude = {};
    };

    explicit applied_dora(dora_adapter<S> a) : adapter(std::move(a)), delta_(adapter.lora.delta()) {
        detail::expects(adapter.magnitude.size() == adapter.lora.rows(),
                        "dora_adapter: magnitude needs one entry per output");
    }

    dora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return delta_.rows(); }
    [[nodiscard]] index cols() const { return delta_.cols(); }

    /// The row norms of the base are taken once: a base that is edited afterwards needs a new adapter.
    void refresh(operator_reference<S> base);

    [[nodiscard]] gradient zero_gradient() const {
        gradient g{.delta = lowrank::zero_gradient(delta_)};
        g.magnitude.setZero(rows());
        return g;
    }
    static std::vector<std::span<S>> spans(gradient& g) {
        return {detail::entries(g.delta.left), detail::entries(g.delta.right), detail::entries(g.magnitude)};
    }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const;
    [[nodiscard]] weight_change<S> change() const {
        check();
        return scaled_change<S>{.delta = delta_, .row_scale = scale_};
    }

private:
    void check() const {
        detail::expects(scale_.size() == rows(),
                        "any_adapter: a DoRA adapter must be refreshed with its base before use");
    }

    low_rank<S> delta_;
    vector<S> norms_ = {};
    vector<S> scale_ = {};
};

/// The factors of LoRA and the lengths.
template <real S>
struct adapter_kind<dora_adapter<S>> {
    static constexpr std::string_view name = "dora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        adapter_kind<lora_adapter<S>>::visit(a.lora, f);
        f(std::string_view("lora_magnitude_vector"), a.magnitude);
    }
    static const lora_adapter<S>* lora(const dora_adapter<S>& a) { return &a.lora; }
    static double dropout(const dora_adapter<S>& a) { return a.lora.lora_dropout; }
    static bool permute_rows(dora_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.lora.lora_B, rows) && detail::permute_rows(a.magnitude, rows) &&
               (a.base_norms2.size() == 0 || detail::permute_rows(a.base_norms2, rows));
    }
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            return detail::dora_from_norms<S>(make_lora<S>(layer, options), squared_row_norms_of_operator(layer.base));
        };
    }
    using applied = applied_dora<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/dora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_DORA_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_IA3_HPP
#define LOWRANK_LORA_KINDS_IA3_HPP

/// \file
/// (IA)^3: learned scales on a layer's outputs or, in feed-forward layers, on its inputs.
///
///     lowrank::scaled_operator<float> layer{.base = lowrank::as_operator(w), .output_scale = magnitude};
///     auto y = lowrank::apply(layer, x);               // l o (W x)
///
/// Liu et al., arXiv 2205.05638. Merged, it is `merge(w, rank-zero change, {.row_scale = l})` (column_scale for
/// inputs); the bias of an output-scaled layer is scaled with it. The receipt makes unmerging exact where PEFT divides
/// by l + 1e-8.

#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Y += alpha diag(out_scale) W diag(in_scale) X, or of the transpose. A null or empty scale is all ones.
template <real S>
void scaled_product(operator_reference<S> base, const vector<S>* in_scale, const vector<S>* out_scale, S alpha,
                    const_column_view<S> x, column_view<S> y, workspace& ws, bool transposed = false);

}  // namespace detail

/// The linear operator diag(output_scale) base diag(input_scale). An empty scale is all ones.
template <real S>
struct scaled_operator {
    using scalar = S;

    any_operator<S> base;
    vector<S> output_scale = {};
    vector<S> input_scale = {};

    [[nodiscard]] index rows() const { return base.rows(); }
    [[nodiscard]] index cols() const { return base.cols(); }

    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("scaled_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("scaled_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        detail::scaled_product<S>(base, &input_scale, &output_scale, alpha, x, y, ws);
    }
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("scaled_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("scaled_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        detail::scaled_product<S>(base, &output_scale, &input_scale, alpha, x, y, ws, true);
    }
};

/// What (IA)^3 trains for one layer: l, all ones when it changes nothing.
template <real S>
struct ia3_adapter {
    using scalar = S;

    vector<S> ia3_l = {};         ///< One entry per output, or per input where it scales inputs.
    bool is_feedforward = false;  ///< Scales the inputs: W' = W diag(l) instead of diag(l) W.
    index out = 0;                ///< Of the layer,
    index in = 0;
};

/// A new adapter of an out x in layer: ones.
template <real S>
[[nodiscard]] ia3_adapter<S> make_ia3(index out, index in, bool is_feedforward = false);

/// Adds the gradient of the scale of the outputs: dl += rowsum(dY o (W X + bias)). `bias` may be empty.
template <real S>
void output_scale_backward(std::type_identity_t<operator_reference<S>> base, const vector<S>& bias,
                           std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                           vector<S>& gradient, workspace& ws);

/// Adds the gradient of the scale of the inputs: dl += rowsum(X o (W^T dY)).
template <real S>
void input_scale_backward(std::type_identity_t<operator_reference<S>> base,
                          std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                          vector<S>& gradient, workspace& ws);

/// Scales around the base.
template <real S>
class applied_ia3 {
public:
    using scalar = S;
    static constexpr bool additive = false;
    using gradient = ia3_adapter<S>;

    explicit applied_ia3(ia3_adapter<S> a) : adapter(std::move(a)) {
        detail::expects(adapter.ia3_l.size() == (adapter.is_feedforward ? adapter.in : adapter.out),
                        "ia3_adapter: ia3_l needs one entry per output, or per input where it scales inputs");
    }

    ia3_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.out; }
    [[nodiscard]] index cols() const { return adapter.in; }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return detail::with_zero_parameters(adapter); }
    static std::vector<std::span<S>> spans(gradient& g) { return {detail::entries(g.ia3_l)}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        detail::scaled_product<S>(base, input_scale(), output_scale(), alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        detail::scaled_product<S>(base, output_scale(), input_scale(), alpha, x, y, ws, true);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const { detail::add_entries(g.ia3_l, out); }
    [[nodiscard]] weight_change<S> change() const {
        scaled_change<S> c{.delta = {.left = matrix<S>(rows(), 0), .right = matrix<S>(0, cols())}};
        (adapter.is_feedforward ? c.column_scale : c.row_scale) = adapter.ia3_l;
        return c;
    }

private:
    [[nodiscard]] const vector<S>* input_scale() const { return adapter.is_feedforward ? &adapter.ia3_l : nullptr; }
    [[nodiscard]] const vector<S>* output_scale() const { return adapter.is_feedforward ? nullptr : &adapter.ia3_l; }
};

/// One scale.
template <real S>
struct adapter_kind<ia3_adapter<S>> {
    static constexpr std::string_view name = "ia3";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("ia3_l"), a.ia3_l);
    }
    static bool permute_rows(ia3_adapter<S>& a, std::span<const index> rows) {
        return a.is_feedforward || detail::permute_rows(a.ia3_l, rows);
    }
    static constexpr double learning_rate = 2e-2;
    static constexpr std::string_view usual_modules[] = {"k_proj", "v_proj", "down_proj"};
    static auto maker(const adapted_layers& /*all*/, const lora_options& /*options*/) {
        return [](const target_layer<S>& layer) {
            return make_ia3<S>(layer.base.rows(), layer.base.cols(), layer.is_feedforward);
        };
    }
    using applied = applied_ia3<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/ia3.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_IA3_HPP

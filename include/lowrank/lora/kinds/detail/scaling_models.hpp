// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DETAIL_SCALING_MODELS_HPP
#define LOWRANK_LORA_KINDS_DETAIL_SCALING_MODELS_HPP

/// \file
/// The models (adapter_models.hpp) of adapters that scale or turn what the base does and so need it at every call:
/// DoRA, (IA)^3, and the rotations of the inputs.
///
///     #include <lowrank/lora/any_adapter.hpp>          // includes this

#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/detail/adapter_models.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/ia3.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <real S>
struct adapter_traits<dora_adapter<S>> {
    static constexpr std::string_view kind = "dora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        adapter_traits<lora_adapter<S>>::visit(a.lora, f);
        f(std::string_view("lora_magnitude_vector"), a.magnitude);
    }
};
template <real S>
struct adapter_traits<ia3_adapter<S>> {
    static constexpr std::string_view kind = "ia3";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("ia3_l"), a.ia3_l);
    }
};

/// DoRA keeps its factors, the norms of the adapted rows and the scale they give.
template <real S>
class adapter_model<dora_adapter<S>> {
public:
    static constexpr bool additive = false;
    struct gradient {
        delta_gradient<S> change;
        vector<S> magnitude;
    };

    explicit adapter_model(dora_adapter<S> a) : adapter(std::move(a)), change_(adapter.lora.delta()) {
        expects(adapter.magnitude.size() == adapter.lora.rows(), "dora_adapter: magnitude needs one entry per output");
    }

    dora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return change_.rows(); }
    [[nodiscard]] index cols() const { return change_.cols(); }

    /// The row norms of the base are taken once: a base that is edited afterwards needs a new adapter.
    void refresh(operator_reference<S> base) {
        change_ = adapter.lora.delta();
        if (adapter.base_norms2.size() != base.rows()) {
            adapter.base_norms2 = squared_row_norms_of_operator(base);
        }
        norms_ = adapted_row_norms(base, adapter.base_norms2, change_);
        scale_ = dora_scale<S>(adapter.magnitude, norms_);
    }

    [[nodiscard]] gradient zero_gradient() const { return {lowrank::zero_gradient(change_), vector<S>::Zero(rows())}; }
    static std::vector<std::span<S>> places(gradient& g) {
        return {entries(g.change.left), entries(g.change.right), entries(g.magnitude)};
    }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        check();
        dora_product(base, change_, scale_, alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        check();
        dora_transposed_product(base, change_, scale_, alpha, x, y, ws);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        check();
        with_scaled(alpha, dy, ws, [&](const_column_view<S> scaled) {
            dora_product_backward(base, change_, scale_, norms_, x, scaled, g.change, g.magnitude, dx, ws);
        });
    }
    void pull_back(const gradient& g, S* out) const {
        out = add_entries(g.change.right, out);
        out = add_entries(matrix<S>(adapter.lora.scaling() * g.change.left), out);
        add_entries(g.magnitude, out);
    }
    [[nodiscard]] std::optional<adapted_form<S>> form() const {
        check();
        return adapted_form<S>{.change = change_, .row_scale = scale_};
    }

private:
    void check() const {
        expects(scale_.size() == rows(), "any_adapter: a DoRA adapter must be refreshed with its base before use");
    }

    low_rank<S> change_;
    vector<S> norms_ = {};
    vector<S> scale_ = {};
};

/// (IA)^3.
template <real S>
class adapter_model<ia3_adapter<S>> {
public:
    static constexpr bool additive = false;
    struct gradient {
        vector<S> ia3_l;
    };

    explicit adapter_model(ia3_adapter<S> a) : adapter(std::move(a)) {
        expects(adapter.ia3_l.size() == (adapter.is_feedforward ? adapter.in : adapter.out),
                "ia3_adapter: ia3_l needs one entry per output, or per input where it scales inputs");
    }

    ia3_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.out; }
    [[nodiscard]] index cols() const { return adapter.in; }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return {vector<S>::Zero(adapter.ia3_l.size())}; }
    static std::vector<std::span<S>> places(gradient& g) { return {entries(g.ia3_l)}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        through(adapter.is_feedforward, alpha, x, y, ws,
                [&](S a, const_column_view<S> in, column_view<S> out) { base.add_product(a, in, out, ws); });
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        through(!adapter.is_feedforward, alpha, x, y, ws,
                [&](S a, const_column_view<S> in, column_view<S> out) { base.add_transposed_product(a, in, out, ws); });
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        with_scaled(alpha, dy, ws, [&](const_column_view<S> scaled) {
            if (adapter.is_feedforward) {
                input_scale_backward(base, x, scaled, g.ia3_l, ws);
            } else {
                output_scale_backward(base, vector<S>(), x, scaled, g.ia3_l, ws);
            }
            if (dx != nullptr) {
                add_transposed_product(base, S(1), scaled, *dx, ws);
            }
        });
    }
    void pull_back(const gradient& g, S* out) const { add_entries(g.ia3_l, out); }
    [[nodiscard]] std::optional<adapted_form<S>> form() const {
        adapted_form<S> f{.change = {.left = matrix<S>(rows(), 0), .right = matrix<S>(0, cols())}};
        (adapter.is_feedforward ? f.column_scale : f.row_scale) = adapter.ia3_l;
        return f;
    }

private:
    template <class F>
    void through(bool scale_first, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                 F&& multiply) const {
        const workspace::frame scope(ws);
        if (scale_first) {
            auto in = ws.take<S>(x.rows(), x.cols());
            in.noalias() = adapter.ia3_l.asDiagonal() * x;
            multiply(alpha, in, y);
            return;
        }
        auto out = ws.take<S>(y.rows(), y.cols());
        out.setZero();
        multiply(alpha, x, out);
        y.noalias() += adapter.ia3_l.asDiagonal() * out;
    }
};

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_DETAIL_SCALING_MODELS_HPP

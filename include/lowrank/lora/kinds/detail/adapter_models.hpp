// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DETAIL_ADAPTER_MODELS_HPP
#define LOWRANK_LORA_KINDS_DETAIL_ADAPTER_MODELS_HPP

/// \file
/// What `any_adapter` needs to know of each kind: its parameters, the form it is applied in, the way back.
///
///     template <real S> class adapter_model<my_adapter<S>> { ... };        // that is all a new kind needs
///
/// A model keeps the adapter and what applying it needs (factors, row norms), made anew by `refresh` after the
/// parameters changed. An `additive` one adds alpha (W' - W) x, the others alpha W' x. Backward adds gradients of the
/// applied form; `pull_back` takes them to the parameters, once per step. A `factored_adapter` needs only its
/// `adapter_traits`. Models that need the base are in scaling_models.hpp.

#include <algorithm>
#include <cstddef>
#include <functional>
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
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/kinds/adalora.hpp>
#include <lowrank/lora/kinds/loha.hpp>
#include <lowrank/lora/kinds/lokr.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/kinds/vera.hpp>
#include <lowrank/lora/merge/merged_linear.hpp>
#include <lowrank/lora/train/gradient.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An adapted weight as diag(row_scale) (W + change) diag(column_scale); empty scales are ones.
template <real S>
struct adapted_form {
    low_rank<S> change = {};
    vector<S> row_scale = {};
    vector<S> column_scale = {};
};

namespace detail {

/// The name of a kind, and `visit(a, f)`, which calls f(name, matrix or vector) for every parameter under the name PEFT
/// gives it behind the module path.
template <class A>
struct adapter_traits;

template <real S>
struct adapter_traits<lora_adapter<S>> {
    static constexpr std::string_view kind = "lora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A.weight"), a.lora_A);
        f(std::string_view("lora_B.weight"), a.lora_B);
    }
};
template <real S>
struct adapter_traits<merged_linear_adapter<S>> {
    static constexpr std::string_view kind = "merged_linear";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A.weight"), a.lora_A);
        f(std::string_view("lora_B.weight"), a.lora_B);
    }
};
template <real S>
struct adapter_traits<adalora_adapter<S>> {
    static constexpr std::string_view kind = "adalora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A"), a.lora_A);
        f(std::string_view("lora_B"), a.lora_B);
        f(std::string_view("lora_E"), a.lora_E);
    }
};
template <real S>
struct adapter_traits<vera_adapter<S>> {
    static constexpr std::string_view kind = "vera";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("vera_lambda_b"), a.lambda_b);
        f(std::string_view("vera_lambda_d"), a.lambda_d);
    }
};
template <real S>
struct adapter_traits<loha_adapter<S>> {
    static constexpr std::string_view kind = "loha";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hada_w1_a"), a.w1_a);
        f(std::string_view("hada_w1_b"), a.w1_b);
        f(std::string_view("hada_w2_a"), a.w2_a);
        f(std::string_view("hada_w2_b"), a.w2_b);
    }
};
template <real S>
struct adapter_traits<lokr_adapter<S>> {
    static constexpr std::string_view kind = "lokr";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view(a.w1.whole() ? "lokr_w1" : "lokr_w1_a"), a.w1.left);
        if (!a.w1.whole()) {
            f(std::string_view("lokr_w1_b"), a.w1.right);
        }
        f(std::string_view(a.w2.whole() ? "lokr_w2" : "lokr_w2_a"), a.w2.left);
        if (!a.w2.whole()) {
            f(std::string_view("lokr_w2_b"), a.w2.right);
        }
    }
};

template <class D>
auto entries(D& x) {
    return std::span(x.data(), static_cast<std::size_t>(x.size()));
}

/// to += from, as many as `from` has; returns where the next parameter goes.
template <class D, real S>
S* add_entries(const D& from, S* to) {
    return std::transform(from.data(), from.data() + from.size(), to, to, std::plus<>());
}

/// Calls `body` with alpha dY, which is dY itself for alpha = 1.
template <real S, class F>
void with_scaled(S alpha, const const_column_view<S>& dy, workspace& ws, F&& body) {
    if (alpha == S(1)) {
        body(dy);
        return;
    }
    const workspace::frame scope(ws);
    auto scaled = ws.take<S>(dy.rows(), dy.cols());
    scaled = alpha * dy;
    body(const_column_view<S>(scaled));
}

/// How an adapter of type A is applied and trained. This one: any product of two factors.
template <class A>
class adapter_model {
    static_assert(factored_adapter<A>, "this adapter needs an adapter_model of its own");
    using S = typename A::scalar;

public:
    static constexpr bool additive = true;
    using gradient = delta_gradient<S>;

    explicit adapter_model(A a) : adapter(std::move(a)), change_(adapter.delta()) {}

    A adapter;

    [[nodiscard]] index rows() const { return change_.rows(); }
    [[nodiscard]] index cols() const { return change_.cols(); }
    void refresh(operator_reference<S> /*base*/) { change_ = adapter.delta(); }

    [[nodiscard]] gradient zero_gradient() const { return lowrank::zero_gradient(change_); }
    static std::vector<std::span<S>> places(gradient& g) { return {entries(g.left), entries(g.right)}; }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        change_.add_product(alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        change_.add_transposed_product(alpha, x, y, ws);
    }
    void backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        with_scaled(alpha, dy, ws, [&](const_column_view<S> scaled) { delta_backward(change_, x, scaled, g, dx, ws); });
    }
    void pull_back(const gradient& g, S* out) const {
        A parameters = adapter.pull_back(g);
        adapter_traits<A>::visit(parameters, [&](std::string_view, const auto& p) { out = add_entries(p, out); });
    }
    [[nodiscard]] std::optional<adapted_form<S>> form() const { return adapted_form<S>{.change = change_}; }

private:
    low_rank<S> change_;
};

/// LoRA is applied as it is stored, and may drop inputs.
template <real S>
class adapter_model<lora_adapter<S>> {
public:
    static constexpr bool additive = true;
    using gradient = lora_gradient<S>;

    explicit adapter_model(lora_adapter<S> a) : adapter(std::move(a)) {}

    lora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.rows(); }
    [[nodiscard]] index cols() const { return adapter.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return lowrank::zero_gradient(adapter); }
    static std::vector<std::span<S>> places(gradient& g) { return {entries(g.lora_A), entries(g.lora_B)}; }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const {
        lora_forward(adapter, alpha, x, y, ws, key);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        adapter.add_transposed_product(alpha, x, y, ws);
    }
    void backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const {
        lora_backward(adapter, alpha, x, dy, g, dx, ws, key);
    }
    void pull_back(const gradient& g, S* out) const { add_entries(g.lora_B, add_entries(g.lora_A, out)); }
    [[nodiscard]] std::optional<adapted_form<S>> form() const { return adapted_form<S>{.change = adapter.delta()}; }
};

/// LoKr is applied as a Kronecker product, and its gradients are those of the two small matrices.
template <real S>
class adapter_model<lokr_adapter<S>> {
public:
    static constexpr bool additive = true;
    struct gradient {
        matrix<S> w1, w2;
    };

    explicit adapter_model(lokr_adapter<S> a) : adapter(std::move(a)), map_(adapter.map()) {}

    lokr_adapter<S> adapter;

    [[nodiscard]] index rows() const { return map_.rows(); }
    [[nodiscard]] index cols() const { return map_.cols(); }
    void refresh(operator_reference<S> /*base*/) { map_ = adapter.map(); }

    [[nodiscard]] gradient zero_gradient() const {
        return {matrix<S>::Zero(map_.w1.rows(), map_.w1.cols()), matrix<S>::Zero(map_.w2.rows(), map_.w2.cols())};
    }
    static std::vector<std::span<S>> places(gradient& g) { return {entries(g.w1), entries(g.w2)}; }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        map_.add_product(alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        map_.add_transposed_product(alpha, x, y, ws);
    }
    /// Per column, with x and dy read as matrices: dw1 += c dY^T (w2 X), dw2 += c (dY w1) X^T.
    void backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        const matrix<S>& w1 = map_.w1;
        const matrix<S>& w2 = map_.w2;
        const S factor = alpha * map_.factor;
        const workspace::frame scope(ws);
        auto t = ws.take<S>(w2.rows(), w1.cols());
        for (index j = 0; j < x.cols(); ++j) {
            const const_column_view<S> in(x.col(j).data(), w2.cols(), w1.cols());
            const const_column_view<S> back(dy.col(j).data(), w2.rows(), w1.rows());
            t.noalias() = w2 * in;
            g.w1.noalias() += factor * (back.transpose() * t);
            t.noalias() = back * w1;
            g.w2.noalias() += factor * (t * in.transpose());
        }
        if (dx != nullptr) {
            map_.add_transposed_product(alpha, dy, *dx, ws);
        }
    }
    void pull_back(const gradient& g, S* out) const {
        pull_back_factor(adapter.w2, g.w2, pull_back_factor(adapter.w1, g.w1, out));
    }
    [[nodiscard]] std::optional<adapted_form<S>> form() const { return adapted_form<S>{.change = adapter.delta()}; }

private:
    static S* pull_back_factor(const lokr_factor<S>& f, const matrix<S>& g, S* out) {
        if (f.whole()) {
            return add_entries(g, out);
        }
        out = add_entries(matrix<S>(g * f.right.transpose()), out);
        return add_entries(matrix<S>(f.left.transpose() * g), out);
    }

    kronecker_operator<S> map_;
};

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_DETAIL_ADAPTER_MODELS_HPP

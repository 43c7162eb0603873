// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTER_KIND_HPP
#define LOWRANK_LORA_ADAPTER_KIND_HPP

/// \file
/// The one description of an adapter kind, from which applying, training, merging and reporting follow.
///
///     template <lowrank::real S>
///     struct my_adapter {
///         using scalar = S;
///         lowrank::matrix<S> A, B;
///         lowrank::low_rank<S> delta() const { return {.left = B, .right = A}; }
///         my_adapter pull_back(const lowrank::delta_gradient<S>& g) const { return {.A = g.right, .B = g.left}; }
///     };
///     template <lowrank::real S>
///     struct lowrank::adapter_kind<my_adapter<S>> {
///         static constexpr std::string_view name = "mine";
///         static void visit(auto& a, auto&& f) { f("my_A", a.A); f("my_B", a.B); }    // its parameters, in order
///         using applied = lowrank::applied_factors<my_adapter<S>>;                    // how it acts and is trained
///     };
///     inline const lowrank::any_adapter<float> mine = my_adapter<float>{lora_A, lora_B};     // any_adapter.hpp
///
/// `applied` is a class over the adapter: `applied_factors` for a product of two factors (`factored_adapter`),
/// `applied_operator` for an adapter that is multiplied with itself (`operator_adapter`), `applied_rotation` (algebra/rotation.hpp) for a rotation of the inputs, or one of its own, with the members that
/// `applied_adapter` lists. What is missing does not compile, and the message says which part it is. A description may
/// say more: `lora(a)`, the plain LoRA in it; `dropout(a)`, how often training drops an input; `permute_rows(a, rows)`,
/// new outputs from old ones; `shared_name(a, parameter)`, under which name other layers have the parameter too;
/// `not_merged`, why it cannot be merged; `maker(layers, options)`, `check_layers(layers)` and `learning_rate`, how fresh
/// ones are made, and for which layers (new_adapter.hpp). The kinds of the library stand in kinds/, and in kinds/list.hpp.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Types in an order.
template <class... A>
struct kind_list {};

/// What the library knows of adapters of type A: specialized beside A. This one is of no adapter.
template <class A>
struct adapter_kind;

namespace detail {

/// The entries of a matrix or vector in its own order.
template <class D>
auto entries(D& x) {
    return std::span(x.data(), static_cast<std::size_t>(x.size()));
}

/// to += from, as many as `from` has; returns where the next parameter goes.
template <class D, real S>
S* add_entries(const D& from, S* to) {
    return std::transform(from.data(), from.data() + from.size(), to, to, std::plus<>());
}

/// Adds all parameters of `from`, a value of an adapter's own type, to `to`.
template <class A, real S>
void add_parameters(A from, S* to) {
    adapter_kind<A>::visit(from, [&](std::string_view, const auto& p) { to = add_entries(p, to); });
}

/// The parameters of a gradient that is a value of an adapter's own type.
template <class A>
std::vector<std::span<typename A::scalar>> parameter_spans(A& gradient) {
    std::vector<std::span<typename A::scalar>> all;
    adapter_kind<A>::visit(gradient, [&](std::string_view, auto& p) { all.push_back(entries(p)); });
    return all;
}

/// A value of an adapter's own type with all parameters zero.
template <class A>
A with_zero_parameters(A a) {
    adapter_kind<A>::visit(a, [](std::string_view, auto& p) { p.setZero(); });
    return a;
}

/// Row i becomes row rows[i] of before.
template <class D>
bool permute_rows(D& x, std::span<const index> rows) {
    const D old = x;
    for (index j = 0; j < x.cols(); ++j) {
        for (index i = 0; i < x.rows(); ++i) {
            x(i, j) = old(rows[static_cast<std::size_t>(i)], j);
        }
    }
    return true;
}

/// True if every entry is +0 or -0; stops at the first that is not.
template <class D>
bool all_zero(const D& x) {
    for (index j = 0; j < x.cols(); ++j) {
        for (index i = 0; i < x.rows(); ++i) {
            if (x(i, j) != 0) {
                return false;
            }
        }
    }
    return true;
}

struct ignore_parameter {
    void operator()(std::string_view, const auto&) const {}
};

}  // namespace detail

/// How an adapter is applied and trained. It keeps the adapter and what applying needs (factors, row norms, rotations),
/// recomputed by `refresh` after the parameters changed. An `additive` one adds alpha (W' - W) x, the others alpha W' x.
/// `backward` adds gradients of the applied form, whose entries are `spans(gradient)`; `pull_back` adds them to the
/// gradient of the parameters, once per step. `change` is what the adapter does to the weight it was refreshed with.
template <class M>
concept applied_adapter = requires(M& m, const M& c, typename M::gradient& g,
                                   operator_reference<typename M::scalar> base, typename M::scalar s,
                                   const_column_view<typename M::scalar> x, column_view<typename M::scalar> y,
                                   workspace& ws, const dropout_key& key) {
    { M::additive } -> std::convertible_to<bool>;
    { c.rows() } -> std::convertible_to<index>;
    { c.cols() } -> std::convertible_to<index>;
    m.adapter;
    m.refresh(base);
    { c.zero_gradient() } -> std::same_as<typename M::gradient>;
    { M::spans(g) } -> std::same_as<std::vector<std::span<typename M::scalar>>>;
    c.add_product(base, s, x, y, ws, key);
    c.add_transposed_product(base, s, x, y, ws);
    c.backward(base, s, x, x, g, &y, ws, key);
    c.pull_back(g, &s);
    { c.change() } -> std::convertible_to<weight_change<typename M::scalar>>;
};

/// Compiles if `adapter_kind<A>` describes A completely; else the message names the part that is missing.
template <class A>
consteval void check_adapter_kind() {
    using kind = adapter_kind<A>;
    if constexpr (!requires { sizeof(kind); }) {
        static_assert(sizeof(A) == 0, "adapter_kind<A> is missing: describe the kind beside its adapter type");
    } else if constexpr (!requires { std::string_view(kind::name); }) {
        static_assert(sizeof(A) == 0, "adapter_kind<A>::name is missing: what the kind is called");
    } else if constexpr (!requires(A & a) { kind::visit(a, detail::ignore_parameter{}); }) {
        static_assert(sizeof(A) == 0,
                      "adapter_kind<A>::visit(a, f) is missing: the names and values of its parameters");
    } else if constexpr (!requires { typename kind::applied; }) {
        static_assert(sizeof(A) == 0, "adapter_kind<A>::applied is missing: how the kind is applied and trained");
    } else {
        static_assert(applied_adapter<typename kind::applied>,
                      "adapter_kind<A>::applied lacks a member that applied_adapter asks for");
    }
}

/// Any product of two factors, applied as that. In training it drops inputs, for kinds that say with what probability.
template <factored_adapter A>
class applied_factors {
public:
    using scalar = typename A::scalar;
    using S = scalar;
    static constexpr bool additive = true;
    using gradient = delta_gradient<S>;

    explicit applied_factors(A a) : adapter(std::move(a)), delta_(adapter.delta()) {}

    A adapter;

    [[nodiscard]] index rows() const { return delta_.rows(); }
    [[nodiscard]] index cols() const { return delta_.cols(); }
    void refresh(operator_reference<S> /*base*/) { delta_ = adapter.delta(); }

    [[nodiscard]] gradient zero_gradient() const { return lowrank::zero_gradient(delta_); }
    static std::vector<std::span<S>> spans(gradient& g) { return {detail::entries(g.left), detail::entries(g.right)}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const;
    [[nodiscard]] weight_change<S> change() const { return delta_; }

private:
    low_rank<S> delta_;
};

/// An adapter that is itself the linear operator W' - W, which does not depend on W. `check()` ends in a contract
/// violation where its parameters do not fit each other; it is called once, before everything else. `backward(x, dy, g, dx, ws)` adds the
/// gradients of its parameters for Y += (W' - W) X to `g`, an adapter of the same form, and that of X to `*dx` unless
/// it is null.
template <class A>
concept operator_adapter = requires(const A& a, A& g, typename A::scalar s, const_column_view<typename A::scalar> x,
                                    column_view<typename A::scalar> y, workspace& ws) {
    { a.rows() } -> std::convertible_to<index>;
    { a.cols() } -> std::convertible_to<index>;
    a.check();
    a.add_product(s, x, y, ws);
    a.add_transposed_product(s, x, y, ws);
    a.backward(x, x, g, &y, ws);
    { a.change() } -> std::convertible_to<weight_change<typename A::scalar>>;
};

/// An `operator_adapter`, applied as what it is.
template <operator_adapter A>
class applied_operator {
public:
    using scalar = typename A::scalar;
    using S = scalar;
    static constexpr bool additive = true;
    using gradient = A;

    explicit applied_operator(A a) : adapter(std::move(a)) { adapter.check(); }

    A adapter;

    [[nodiscard]] index rows() const { return adapter.rows(); }
    [[nodiscard]] index cols() const { return adapter.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return detail::with_zero_parameters(adapter); }
    static std::vector<std::span<S>> spans(gradient& g) { return detail::parameter_spans(g); }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        adapter.add_product(alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        adapter.add_transposed_product(alpha, x, y, ws);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(g, out); }
    [[nodiscard]] weight_change<S> change() const { return adapter.change(); }
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/adapter_kind.ipp>
#endif

#endif  // LOWRANK_LORA_ADAPTER_KIND_HPP

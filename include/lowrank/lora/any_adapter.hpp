// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ANY_ADAPTER_HPP
#define LOWRANK_LORA_ANY_ADAPTER_HPP

/// \file
/// An adapter of any kind behind one type: apply it over a base, train it, merge it, without knowing which it is.
///
///     lowrank::any_adapter<float> a = lowrank::make_lora<float>(out, in);          // or any kind of kinds/
///     a.refresh(lowrank::as_operator(w));                                   // after every change of the parameters
///     a.add_product(lowrank::as_operator(w), 1.0F, x, y, ws);               // y += W' x; (W' - W) x if a.additive()
///     auto g = a.zero_gradient();
///     a.backward(lowrank::as_operator(w), 1.0F, x, dy, g, &dx, ws);         // dx: a column_view<float>
///     std::vector<float> parameter_gradient(a.parameter_count());
///     a.pull_back(g, parameter_gradient);                                   // once per step, ordered as parameters()
///
/// Strength t stands for the weight W + t (W' - W), where W' is what the adapter alone makes of W; several adapters add
/// their changes, each of the original W, in any order: `add_adapted_product`. Kinds: everything that `adapter_kind`
/// describes (adapter_kind.hpp); those of the library are in kinds/. Beside the compiled library, a program with a kind
/// of its own includes any_adapter.ipp too.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
struct lora_adapter;

/// One parameter of an adapter. `values` is column-major.
template <real S>
struct adapter_parameter {
    std::string name = {};  ///< As PEFT names it behind the module path: "lora_A.weight", "ia3_l".
    index rows = 0;
    index cols = 0;
    std::span<S> values = {};
    bool is_vector = false;  ///< A scale or a magnitude, not a matrix of one column.
    /// Not empty: adapters of several layers have this parameter together, under this name. Each holds a copy; a trainer
    /// sums their gradients and keeps the copies equal.
    std::string shared = {};
};

namespace detail {

/// A different address for every type.
template <class A>
inline char type_mark = 0;

/// The gradient of some adapter, behind one type.
template <real S>
struct erased_gradient {
    virtual ~erased_gradient() = default;
    const char* mark = nullptr;  ///< Of the model it belongs to.
    std::vector<std::span<S>> spans = {};
};

/// An adapter of some kind behind one type.
template <real S>
struct held_adapter {
    virtual ~held_adapter() = default;
    [[nodiscard]] virtual std::unique_ptr<held_adapter> clone() const = 0;
    [[nodiscard]] virtual std::string_view kind() const = 0;
    [[nodiscard]] virtual index rows() const = 0;
    [[nodiscard]] virtual index cols() const = 0;
    [[nodiscard]] virtual bool additive() const = 0;
    [[nodiscard]] virtual const char* mark() const = 0;
    [[nodiscard]] virtual const void* adapter() const = 0;
    [[nodiscard]] virtual std::vector<adapter_parameter<S>> parameters() = 0;
    [[nodiscard]] virtual index parameter_count() const = 0;
    virtual void refresh(operator_reference<S> base) = 0;
    virtual void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                             workspace& ws, const dropout_key& key) const = 0;
    virtual void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                        workspace& ws) const = 0;
    [[nodiscard]] virtual std::unique_ptr<erased_gradient<S>> zero_gradient() const = 0;
    virtual void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                          erased_gradient<S>& gradient, column_view<S>* dx, workspace& ws,
                          const dropout_key& key) const = 0;
    virtual void pull_back(const erased_gradient<S>& gradient, S* out) const = 0;
    [[nodiscard]] virtual weight_change<S> change() const = 0;
    [[nodiscard]] virtual double dropout() const = 0;
    [[nodiscard]] virtual const lora_adapter<S>* lora() const = 0;
    [[nodiscard]] virtual std::string_view not_merged() const = 0;
    [[nodiscard]] virtual bool permute_rows(std::span<const index> rows) = 0;
};

/// Puts an adapter of type A behind that type. Defined in hold_adapter.hpp.
template <class A>
std::unique_ptr<held_adapter<typename A::scalar>> hold_adapter(A adapter);

}  // namespace detail

/// What backward adds to: made by `any_adapter::zero_gradient`, one per thread, used with that adapter only.
template <real S>
class adapter_gradient {
public:
    void set_zero() {
        for (const auto& entries : value_->spans) {
            std::fill(entries.begin(), entries.end(), S(0));
        }
    }
    /// Adds another gradient of the same adapter.
    void add(const adapter_gradient& other) {
        detail::expects(other.value_->mark == value_->mark && other.value_->spans.size() == value_->spans.size(),
                        "adapter_gradient::add: the other gradient is not of this adapter");
        for (std::size_t i = 0; i < value_->spans.size(); ++i) {
            const auto& to = value_->spans[i];
            const auto& from = other.value_->spans[i];
            detail::expects(from.size() == to.size(),
                            "adapter_gradient::add: the other gradient is not of this adapter");
            std::transform(to.begin(), to.end(), from.begin(), to.begin(), std::plus<>());
        }
    }

private:
    template <real>
    friend class any_adapter;
    explicit adapter_gradient(std::unique_ptr<detail::erased_gradient<S>> value) : value_(std::move(value)) {}

    std::unique_ptr<detail::erased_gradient<S>> value_;
};

/// A trainable change of one out x in layer. A value: copies are deep. Const operations are safe to call concurrently.
template <real S>
class any_adapter {
public:
    using scalar = S;

    /// Takes over an adapter of any kind.
    template <class A>
    requires(!std::same_as<std::remove_cvref_t<A>, any_adapter> && std::same_as<typename A::scalar, S>)
        any_adapter(A adapter)  // NOLINT: conversion is the point
        : self_(detail::hold_adapter(std::move(adapter))) {
        check_adapter_kind<A>();
    }
    any_adapter(const any_adapter& other) : self_(other.self_->clone()) {}
    any_adapter(any_adapter&&) noexcept = default;
    any_adapter& operator=(any_adapter other) noexcept {
        self_ = std::move(other.self_);
        return *this;
    }
    ~any_adapter() = default;

    /// The name of its kind: "lora", ...
    [[nodiscard]] std::string_view kind() const { return self_->kind(); }
    /// 0 before the first refresh for a rotation of the inputs, which knows those only.
    [[nodiscard]] index rows() const { return self_->rows(); }
    /// 0 before the first refresh for a rotation of the outputs.
    [[nodiscard]] index cols() const { return self_->cols(); }
    /// True if W' - W does not depend on W: `add_product` then adds that difference and needs no base.
    [[nodiscard]] bool additive() const { return self_->additive(); }
    /// The adapter, if it is an A; else null.
    template <class A>
    [[nodiscard]] const A* get() const {
        return self_->mark() == &detail::type_mark<A> ? static_cast<const A*>(self_->adapter()) : nullptr;
    }
    /// The plain LoRA that the adapter consists of or is built around, else null.
    [[nodiscard]] const lora_adapter<S>* lora() const { return self_->lora(); }
    /// Of dropping inputs in training; 0 for kinds that do not.
    [[nodiscard]] double dropout() const { return self_->dropout(); }

    /// Everything that trains. Write into the values, then `refresh`.
    [[nodiscard]] std::vector<adapter_parameter<S>> parameters() { return self_->parameters(); }
    [[nodiscard]] index parameter_count() const { return self_->parameter_count(); }

    /// Recomputes what applying needs (factors, row norms, rotations) from the parameters. Needed after they changed,
    /// and once before use for kinds that are not additive. \cost Small matrices; W A^T
    /// for kinds that measure the adapted rows.
    void refresh(operator_reference<S> base) {
        check_base("any_adapter::refresh", base);
        self_->refresh(base);
    }

    /// Y += t (W' - W) X if additive, else Y += (W + t (W' - W)) X. `key` drops inputs of LoRA in training.
    void add_product(operator_reference<S> base, S strength, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key = {}) const {
        check_base("any_adapter::add_product", base);
        self_->add_product(base, strength, x, y, ws, key);
        if (!additive() && strength != S(1)) {
            base.add_product(S(1) - strength, x, y, ws);
        }
    }
    /// The transpose of what `add_product` multiplies with.
    void add_transposed_product(operator_reference<S> base, S strength, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        check_base("any_adapter::add_transposed_product", base);
        self_->add_transposed_product(base, strength, x, y, ws);
        if (!additive() && strength != S(1)) {
            base.add_transposed_product(S(1) - strength, x, y, ws);
        }
    }

    /// A gradient for `backward`, all zero.
    [[nodiscard]] adapter_gradient<S> zero_gradient() const { return adapter_gradient<S>(self_->zero_gradient()); }

    /// Adds the gradients of a loss through `add_product`, given dY, and to `*dx` unless it is null. What the forward
    /// pass computed is computed again. Allocates nothing after the first call with the same shapes.
    void backward(operator_reference<S> base, S strength, const_column_view<S> x, const_column_view<S> dy,
                  adapter_gradient<S>& gradient, column_view<S>* dx, workspace& ws, const dropout_key& key = {}) const {
        check_base("any_adapter::backward", base);
        self_->backward(base, strength, x, dy, *gradient.value_, dx, ws, key);
        if (dx != nullptr && !additive() && strength != S(1)) {
            base.add_transposed_product(S(1) - strength, dy, *dx, ws);
        }
    }
    /// Adds the gradient of the parameters, in the order of `parameters()`. \pre `out` has `parameter_count()` entries.
    void pull_back(const adapter_gradient<S>& gradient, std::span<S> out) const {
        detail::expects(static_cast<index>(out.size()) == parameter_count(),
                        "any_adapter::pull_back: out needs one entry per parameter");
        self_->pull_back(*gradient.value_, out.data());
    }

    /// Why no merge may write the adapter into a weight; empty where it may.
    [[nodiscard]] std::string_view not_merged() const { return self_->not_merged(); }

    /// Output i becomes output rows[i] of before, in all parameters that live on outputs: for engines whose q and k have
    /// another order of rows. Kinds that are not additive need a refresh afterwards.
    /// \pre    `rows` is a permutation of the outputs.
    /// \return `unsupported`, with the adapter as it was, for a kind whose outputs have no parameters of their own.
    status permute_rows(std::span<const index> rows);

    /// What the adapter does to the weight it was refreshed with, at a strength. \pre `not_merged()` is empty.
    [[nodiscard]] weight_change<S> change(S strength = S(1)) const {
        detail::expects(not_merged().empty(), "any_adapter::change: this kind cannot be merged; see not_merged()");
        return at_strength(self_->change(), static_cast<double>(strength));
    }

private:
    void check_base(const char* function, const operator_reference<S>& base) const {
        const index out = rows();
        const index in = cols();
        detail::expects_shape(function, "base", base.rows(), base.cols(), out == 0 ? base.rows() : out,
                              in == 0 ? base.cols() : in);
    }

    std::unique_ptr<detail::held_adapter<S>> self_;
};

template <real S>
status any_adapter<S>::permute_rows(std::span<const index> rows) {
    const index known = this->rows();
    detail::expects(known == 0 || static_cast<index>(rows.size()) == known,
                    "any_adapter::permute_rows: needs one row for every output");
    std::vector<bool> seen(rows.size(), false);
    for (const index row : rows) {
        detail::expects_in_range("any_adapter::permute_rows", "row", row, index{0},
                                 static_cast<index>(rows.size()) - 1);
        detail::expects(!seen[static_cast<std::size_t>(row)], "any_adapter::permute_rows: a row occurs twice");
        seen[static_cast<std::size_t>(row)] = true;
    }
    if (!self_->permute_rows(rows)) {
        return {errc::unsupported, "the rows of a " + std::string(kind()) +
                                       " adapter cannot be put into another order: its parameters are not those of "
                                       "single outputs. Permute the rows of the base back, or merge the adapter first"};
    }
    return {};
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/any_adapter.ipp>
#endif

#endif  // LOWRANK_LORA_ANY_ADAPTER_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ANY_ADAPTER_HPP
#define LOWRANK_LORA_ANY_ADAPTER_HPP

/// \file
/// An adapter of any kind behind one type: apply it over a base, train it, merge it, without knowing which it is.
///
///     lowrank::any_adapter<float> a = lowrank::make_dora(w, {.r = 8});
///     a.refresh(lowrank::as_operator(w));                                   // after every change of the parameters
///     a.add_product(lowrank::as_operator(w), 1.0F, x, y, ws);               // y += W' x, or (W' - W) x if a.additive()
///     auto g = a.zero_gradient();
///     a.backward(lowrank::as_operator(w), 1.0F, x, dy, g, &dx, ws);
///     a.pull_back(g, parameter_gradient);                              // once per step, in the order of parameters()
///
/// Strength t stands for the weight W + t (W' - W), where W' is what the adapter alone makes of W; several adapters add
/// their changes, each of the original W, in any order: `add_adapted_product`. Kinds: everything with an
/// `adapter_model` (detail/adapter_models.hpp); a new one needs that and nothing else.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
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
#include <lowrank/lora/kinds/detail/adapter_models.hpp>
#include <lowrank/lora/kinds/detail/rotation_models.hpp>
#include <lowrank/lora/kinds/detail/scaling_models.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One parameter of an adapter. `values` is column-major.
template <real S>
struct adapter_parameter {
    std::string name = {};  ///< As PEFT names it behind the module path: "lora_A.weight", "ia3_l".
    index rows = 0;
    index cols = 0;
    std::span<S> values = {};
    bool is_vector = false;  ///< A scale or a magnitude, not a matrix of one column.
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
    std::vector<std::span<S>> places = {};
};
template <class Model, real S>
struct typed_gradient final : erased_gradient<S> {
    explicit typed_gradient(const Model& model) : value(model.zero_gradient()) {
        this->mark = &type_mark<Model>;
        this->places = Model::places(value);
    }
    typename Model::gradient value;
};
}  // namespace detail

/// What backward adds to: made by `any_adapter::zero_gradient`, one per thread, used with that adapter only.
template <real S>
class adapter_gradient {
public:
    void set_zero() {
        for (const auto& place : value_->places) {
            std::fill(place.begin(), place.end(), S(0));
        }
    }
    /// Adds another gradient of the same adapter.
    void add(const adapter_gradient& other) {
        detail::expects(other.value_->mark == value_->mark && other.value_->places.size() == value_->places.size(),
                        "adapter_gradient::add: the other gradient is not of this adapter");
        for (std::size_t i = 0; i < value_->places.size(); ++i) {
            const auto& to = value_->places[i];
            const auto& from = other.value_->places[i];
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
        : self_(hold(std::move(adapter))) {}
    any_adapter(const any_adapter& other) : self_(other.self_->clone()) {}
    any_adapter(any_adapter&&) noexcept = default;
    any_adapter& operator=(any_adapter other) noexcept {
        self_ = std::move(other.self_);
        return *this;
    }
    ~any_adapter() = default;

    /// "lora", "dora", "loha", ...
    [[nodiscard]] std::string_view kind() const { return self_->kind(); }
    /// 0 for OFT and HRA before the first refresh: they know the inputs only.
    [[nodiscard]] index rows() const { return self_->rows(); }
    [[nodiscard]] index cols() const { return self_->cols(); }
    /// True if W' - W does not depend on W: `add_product` then adds that difference and needs no base.
    [[nodiscard]] bool additive() const { return self_->additive(); }
    /// The adapter, if it is an A; else null.
    template <class A>
    [[nodiscard]] const A* get() const {
        return self_->mark() == &detail::type_mark<A> ? static_cast<const A*>(self_->adapter()) : nullptr;
    }
    /// Of dropping inputs in training; 0 for all kinds but LoRA.
    [[nodiscard]] double dropout() const {
        const auto* lora = get<lora_adapter<S>>();
        return lora == nullptr ? 0.0 : lora->lora_dropout;
    }

    /// Everything that trains. Write into the values, then `refresh`.
    [[nodiscard]] std::vector<adapter_parameter<S>> parameters() { return self_->parameters(); }
    [[nodiscard]] index parameter_count() const { return self_->parameter_count(); }

    /// Makes anew what applying needs (factors, row norms, rotations) from the parameters. Needed after they changed,
    /// and once before use for kinds that are not additive. \cost Small matrices; DoRA also W A^T, once more ||W|| by
    /// rows.
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

    /// W + t (W' - W) as scales around W and a low-rank change, if it has that form.
    [[nodiscard]] std::optional<adapted_form<S>> form(S strength = S(1)) const {
        auto f = self_->form();
        if (!f || (strength == S(1) && !additive())) {
            return f;
        }
        if (additive()) {
            f->change.left *= strength;
            return f;
        }
        if (f->column_scale.size() > 0 && (f->row_scale.size() > 0 || f->change.rank() > 0)) {
            return std::nullopt;
        }
        // diag(e) W + t diag(r) L R with e = 1 + t (r - 1).
        auto& scale = f->column_scale.size() > 0 ? f->column_scale : f->row_scale;
        const vector<S> old = scale;
        scale = S(1) + strength * (old.array() - S(1));
        if (f->change.rank() > 0) {
            if ((scale.array() == S(0) && old.array() != S(0)).any()) {
                return std::nullopt;
            }
            const vector<S> ratio = (scale.array() == S(0)).select(S(0), strength * old.array() / scale.array());
            f->change.left = ratio.asDiagonal() * f->change.left;
        }
        return f;
    }

    /// Rows of W into rows of W', for kinds without a form.
    [[nodiscard]] std::optional<detail::any_row_transform> transform() const { return self_->transform(); }

private:
    struct interface {
        virtual ~interface() = default;
        [[nodiscard]] virtual std::unique_ptr<interface> clone() const = 0;
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
        virtual void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x,
                                            column_view<S> y, workspace& ws) const = 0;
        [[nodiscard]] virtual std::unique_ptr<detail::erased_gradient<S>> zero_gradient() const = 0;
        virtual void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                              detail::erased_gradient<S>& gradient, column_view<S>* dx, workspace& ws,
                              const dropout_key& key) const = 0;
        virtual void pull_back(const detail::erased_gradient<S>& gradient, S* out) const = 0;
        [[nodiscard]] virtual std::optional<adapted_form<S>> form() const = 0;
        [[nodiscard]] virtual std::optional<detail::any_row_transform> transform() const = 0;
    };

    template <class A>
    struct holder final : interface {
        using model_type = detail::adapter_model<A>;
        using gradient_type = detail::typed_gradient<model_type, S>;

        explicit holder(A a) : model(std::move(a)) {}
        std::unique_ptr<interface> clone() const override { return std::make_unique<holder>(*this); }
        std::string_view kind() const override { return detail::adapter_traits<A>::kind; }
        index rows() const override { return model.rows(); }
        index cols() const override { return model.cols(); }
        bool additive() const override { return model_type::additive; }
        const char* mark() const override { return &detail::type_mark<A>; }
        const void* adapter() const override { return &model.adapter; }
        std::vector<adapter_parameter<S>> parameters() override {
            std::vector<adapter_parameter<S>> list;
            detail::adapter_traits<A>::visit(model.adapter, [&](std::string_view name, auto& p) {
                list.push_back({std::string(name), p.rows(), p.cols(), detail::entries(p),
                                bool(std::remove_cvref_t<decltype(p)>::IsVectorAtCompileTime)});
            });
            return list;
        }
        index parameter_count() const override {
            index n = 0;
            detail::adapter_traits<A>::visit(model.adapter, [&](std::string_view, const auto& p) { n += p.size(); });
            return n;
        }
        void refresh(operator_reference<S> base) override { model.refresh(base); }
        void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                         const dropout_key& key) const override {
            model.add_product(base, alpha, x, y, ws, key);
        }
        void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                    workspace& ws) const override {
            model.add_transposed_product(base, alpha, x, y, ws);
        }
        std::unique_ptr<detail::erased_gradient<S>> zero_gradient() const override {
            return std::make_unique<gradient_type>(model);
        }
        void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                      detail::erased_gradient<S>& gradient, column_view<S>* dx, workspace& ws,
                      const dropout_key& key) const override {
            check_gradient(gradient);
            model.backward(base, alpha, x, dy, static_cast<gradient_type&>(gradient).value, dx, ws, key);
        }
        void pull_back(const detail::erased_gradient<S>& gradient, S* out) const override {
            check_gradient(gradient);
            model.pull_back(static_cast<const gradient_type&>(gradient).value, out);
        }
        static void check_gradient(const detail::erased_gradient<S>& gradient) {
            detail::expects(gradient.mark == &detail::type_mark<model_type>,
                            "any_adapter: the gradient was made for another kind of adapter");
        }
        std::optional<adapted_form<S>> form() const override { return model.form(); }
        std::optional<detail::any_row_transform> transform() const override {
            if constexpr (requires { model.transform(); }) {
                return model.transform();
            } else {
                return std::nullopt;
            }
        }

        model_type model;
    };

    template <class A>
    static std::unique_ptr<interface> hold(A adapter);

    void check_base(const char* function, const operator_reference<S>& base) const {
        const index known = rows();
        detail::expects_shape(function, "base", base.rows(), base.cols(), known == 0 ? base.rows() : known, cols());
    }

    std::unique_ptr<interface> self_;
};

// Not inline, so that it can be declared extern: every kind is some thousand lines of arithmetic.
template <real S>
template <class A>
std::unique_ptr<typename any_adapter<S>::interface> any_adapter<S>::hold(A adapter) {
    return std::make_unique<holder<A>>(std::move(adapter));
}

/// Calls `macro(S, kind)` for every adapter of the library.
#define LOWRANK_FOR_EACH_ADAPTER(macro, S)                                                                  \
    macro(S, lora_adapter) macro(S, merged_linear_adapter) macro(S, adalora_adapter) macro(S, vera_adapter) \
        macro(S, loha_adapter) macro(S, lokr_adapter) macro(S, dora_adapter) macro(S, ia3_adapter)          \
            macro(S, oft_adapter) macro(S, boft_adapter) macro(S, hra_adapter) macro(S, miss_adapter)       \
                macro(S, randlora_adapter) macro(S, hira_adapter)
#ifdef LOWRANK_EXTERN_TEMPLATES
#define LOWRANK_EXTERN_ADAPTER(S, kind) \
    extern template std::unique_ptr<any_adapter<S>::interface> any_adapter<S>::hold<kind<S>>(kind<S>);
LOWRANK_FOR_EACH_ADAPTER(LOWRANK_EXTERN_ADAPTER, float)
LOWRANK_FOR_EACH_ADAPTER(LOWRANK_EXTERN_ADAPTER, double)
#undef LOWRANK_EXTERN_ADAPTER
#endif

/// W <- round(W + t (W' - W)), in place, with audit and receipt: `merge` of the adapter's form, or `merge_transformed`.
///
/// \return As these; `unsupported` for a strength other than 1 of kinds without a form, and for one at which a row of W
///         vanishes.
template <storage T>
[[nodiscard]] result<merge_receipt> merge(weight_view<T> w, const any_adapter<compute_t<T>>& adapter,
                                          std::type_identity_t<compute_t<T>> strength = 1, const executor& run = {}) {
    const auto f = adapter.form(strength);
    if (const auto rows = adapter.transform(); rows && strength == 1) {
        return merge_transformed(w, *rows, {.exec = run});
    }
    if (!f) {
        return status{errc::unsupported, "merge: this " + std::string(adapter.kind()) +
                                             " adapter at this strength is not a scaled low-rank change"};
    }
    return merge(
        w, f->change,
        {.row_scale = detail::entries(f->row_scale), .column_scale = detail::entries(f->column_scale), .exec = run});
}

/// Gives W back the bits it had before that merge.
template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt, const any_adapter<compute_t<T>>& adapter,
               std::type_identity_t<compute_t<T>> strength = 1, const executor& run = {}) {
    const auto f = adapter.form(strength);
    if (const auto rows = adapter.transform(); rows && strength == 1) {
        return unmerge_transformed(w, receipt, *rows, {.exec = run});
    }
    if (!f) {
        return {errc::unsupported, "unmerge: the adapter has no form that merge could have used"};
    }
    return unmerge(
        w, receipt, f->change,
        {.row_scale = detail::entries(f->row_scale), .column_scale = detail::entries(f->column_scale), .exec = run});
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ANY_ADAPTER_HPP

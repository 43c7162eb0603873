// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_HOLD_ADAPTER_HPP
#define LOWRANK_LORA_HOLD_ADAPTER_HPP

/// \file
/// How `any_adapter` holds an adapter of a kind that a program defines itself.
///
///     #include <lowrank/lora/hold_adapter.hpp>         // where the kind's adapter_kind stands
///
/// `any_adapter.hpp` includes it, unless the program links lowrank::compiled, which holds the kinds of the library only.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/lora/adapter_kind.ipp>
#include <lowrank/lora/any_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// The gradient that a model makes.
template <class Model, real S>
struct typed_gradient final : erased_gradient<S> {
    explicit typed_gradient(const Model& model) : value(model.zero_gradient()) {
        this->mark = &type_mark<Model>;
        this->spans = Model::spans(value);
    }
    typename Model::gradient value;
};

/// An adapter of type A as `adapter_kind<A>` describes it.
template <class A>
struct holder final : held_adapter<typename A::scalar> {
    using S = typename A::scalar;
    using model_type = typename adapter_kind<A>::applied;
    using gradient_type = typed_gradient<model_type, S>;

    explicit holder(A a) : model(std::move(a)) {}
    std::unique_ptr<held_adapter<S>> clone() const override { return std::make_unique<holder>(*this); }
    std::string_view kind() const override { return adapter_kind<A>::name; }
    index rows() const override { return model.rows(); }
    index cols() const override { return model.cols(); }
    bool additive() const override { return model_type::additive; }
    const char* mark() const override { return &type_mark<A>; }
    const void* adapter() const override { return &model.adapter; }
    std::vector<adapter_parameter<S>> parameters() override {
        std::vector<adapter_parameter<S>> list;
        adapter_kind<A>::visit(model.adapter, [&](std::string_view name, auto& p) {
            list.push_back({std::string(name), p.rows(), p.cols(), entries(p),
                            bool(std::remove_cvref_t<decltype(p)>::IsVectorAtCompileTime)});
            if constexpr (requires { adapter_kind<A>::shared_name(model.adapter, name); }) {
                list.back().shared = adapter_kind<A>::shared_name(model.adapter, name);
            }
        });
        return list;
    }
    index parameter_count() const override {
        index n = 0;
        adapter_kind<A>::visit(model.adapter, [&](std::string_view, const auto& p) { n += p.size(); });
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
    std::unique_ptr<erased_gradient<S>> zero_gradient() const override {
        return std::make_unique<gradient_type>(model);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                  erased_gradient<S>& gradient, column_view<S>* dx, workspace& ws,
                  const dropout_key& key) const override {
        check_gradient(gradient);
        model.backward(base, alpha, x, dy, static_cast<gradient_type&>(gradient).value, dx, ws, key);
    }
    void pull_back(const erased_gradient<S>& gradient, S* out) const override {
        check_gradient(gradient);
        model.pull_back(static_cast<const gradient_type&>(gradient).value, out);
    }
    static void check_gradient(const erased_gradient<S>& gradient) {
        expects(gradient.mark == &type_mark<model_type>,
                "any_adapter: the gradient was made for another kind of adapter");
    }
    weight_change<S> change() const override { return model.change(); }
    const lora_adapter<S>* lora() const override {
        if constexpr (requires { adapter_kind<A>::lora(model.adapter); }) {
            return adapter_kind<A>::lora(model.adapter);
        } else {
            return nullptr;
        }
    }
    std::string_view not_merged() const override {
        if constexpr (requires { adapter_kind<A>::not_merged; }) {
            return adapter_kind<A>::not_merged;
        } else {
            return {};
        }
    }
    bool permute_rows(std::span<const index> rows) override {
        if constexpr (requires(A & a) { adapter_kind<A>::permute_rows(a, rows); }) {
            A turned = model.adapter;
            if (!adapter_kind<A>::permute_rows(turned, rows)) {
                return false;
            }
            model = model_type(std::move(turned));
            return true;
        } else {
            return false;
        }
    }
    double dropout() const override {
        if constexpr (requires { adapter_kind<A>::dropout(model.adapter); }) {
            return adapter_kind<A>::dropout(model.adapter);
        } else {
            return 0;
        }
    }

    model_type model;
};

template <class A>
std::unique_ptr<held_adapter<typename A::scalar>> hold_adapter(A adapter) {
    return std::make_unique<holder<A>>(std::move(adapter));
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_LORA_HOLD_ADAPTER_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_LINEAR_OPERATOR_HPP
#define LOWRANK_CORE_LINEAR_OPERATOR_HPP

/// \file
/// The concept on which everything composes: a matrix we can only multiply with.
///
///     lowrank::row_matrix<float> w(out, in);                     // or bfloat16, or a memory-mapped view
///     lowrank::matrix<float> y = lowrank::apply(w, x);           // y = W x
///     lowrank::any_operator<float> m = lowrank::as_operator(w);  // type-erased: any base, any adapter
///
/// A linear operator M has `rows()`, `cols()`, a compute scalar, and adds alpha M X or alpha M^T X into Y. Dense matrices,
/// low-rank products, quantized weights, sums of maps and adapted layers are all linear operators.

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A type M with `scalar`, `rows()`, `cols()` and, for X and Y column-major in that scalar,
/// * `add_product(alpha, X, Y, ws)`: Y += alpha M X, with X cols() x k and Y rows() x k;
/// * `add_transposed_product(alpha, X, Y, ws)`: Y += alpha M^T X, with X rows() x k and Y cols() x k.
///
/// Both are const and safe to call concurrently with different workspaces; a wrong shape is a contract violation.
template <class M>
concept linear_operator = real<typename std::remove_cvref_t<M>::scalar> &&
    requires(const std::remove_cvref_t<M>& m, typename std::remove_cvref_t<M>::scalar alpha,
             const_column_view<typename std::remove_cvref_t<M>::scalar> x,
             column_view<typename std::remove_cvref_t<M>::scalar> y, workspace& ws) {
    { m.rows() } -> std::convertible_to<index>;
    { m.cols() } -> std::convertible_to<index>;
    m.add_product(alpha, x, y, ws);
    m.add_transposed_product(alpha, x, y, ws);
};

/// A borrowed dense matrix of any stored scalar in either order (0 column-major, 1 row-major) as a linear operator.
/// The memory must outlive the map.
template <storage T, int Order = 1>
class dense_operator {
public:
    using stored = T;
    using scalar = compute_t<T>;
    using view = detail::strided_view<const T, Order>;

    explicit dense_operator(view w) : w_(w) {}

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols(); }
    [[nodiscard]] const view& weight() const noexcept { return w_; }

    void add_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        lowrank::add_product<T, Order>(alpha, w_, x, y, ws);
    }
    void add_transposed_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        lowrank::add_transposed_product<T, Order>(alpha, w_, x, y, ws);
    }

private:
    view w_;
};

/// A dense row-major weight that owns its memory, as a linear operator.
template <storage T>
class owned_operator {
public:
    using stored = T;
    using scalar = compute_t<T>;

    explicit owned_operator(row_matrix<T> w) : w_(std::move(w)) {}

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols(); }
    [[nodiscard]] const row_matrix<T>& weight() const noexcept { return w_; }
    [[nodiscard]] row_matrix<T>& weight() noexcept { return w_; }

    void add_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        lowrank::add_product<T, 1>(alpha, const_weight_view<T>(w_), x, y, ws);
    }
    void add_transposed_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const {
        lowrank::add_transposed_product<T, 1>(alpha, const_weight_view<T>(w_), x, y, ws);
    }

private:
    row_matrix<T> w_;
};

namespace detail {

/// A dense Eigen object a `dense_operator` can borrow as it lies.
template <class D>
concept dense_weight = eigen_dense<D> && storage<typename plain_t<D>::Scalar> &&(borrowable<D, 0> || borrowable<D, 1>);

template <class D>
concept owns_memory = requires(const D& x) {
    []<class P>(const Eigen::PlainObjectBase<P>&) {}(x);
};

}  // namespace detail

/// Borrows a dense matrix, map or view as a linear operator without copying. The memory must outlive the map.
template <detail::dense_weight D>
[[nodiscard]] auto as_operator(const D& w) {
    constexpr int order = detail::borrowable<D, 1> && !detail::borrowable<D, 0> ? 1 : 0;
    return dense_operator<typename D::Scalar, order>(detail::strided_view<const typename D::Scalar, order>(w));
}

/// A matrix that ends with the expression cannot be borrowed: name it, or move it into an `owned_operator`.
template <detail::dense_weight D>
requires detail::owns_memory<D>
void as_operator(const D&& w) = delete;

/// A linear operator is its own map.
template <linear_operator M>
[[nodiscard]] const M& as_operator(const M& m) {
    return m;
}

/// What a function that takes "a matrix or a linear operator" accepts.
template <class M>
concept operator_like = linear_operator<M> || detail::dense_weight<M>;

/// The scalar a matrix or linear operator computes in.
template <operator_like M>
using operator_scalar = typename std::remove_cvref_t<decltype(as_operator(std::declval<const M&>()))>::scalar;

/// A linear operator of any type behind one, by shared ownership: copies are cheap and share the map.
template <real S>
class any_operator {
public:
    using scalar = S;

    /// Takes over (or shares) `map`. A `dense_operator` still borrows its memory.
    template <linear_operator M>
    requires(!std::same_as<std::remove_cvref_t<M>, any_operator> &&
             std::same_as<typename std::remove_cvref_t<M>::scalar, S>)
        any_operator(M map)  // NOLINT: conversion is the point
        : self_(std::make_shared<const holder<M>>(std::move(map))) {}
    /// Borrows a dense matrix, as `as_operator` does. The memory must outlive the operator.
    template <detail::dense_weight D>
    requires std::same_as<compute_t<typename D::Scalar>, S> any_operator(const D& w)  // NOLINT
        : any_operator(as_operator(w)) {}
    /// A matrix that ends with the expression: move it into an `owned_operator`.
    template <detail::dense_weight D>
    requires detail::owns_memory<D> any_operator(const D&& w)
    = delete;

    [[nodiscard]] index rows() const { return self_->rows(); }
    [[nodiscard]] index cols() const { return self_->cols(); }

    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        self_->add_product(alpha, x, y, ws);
    }
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        self_->add_transposed_product(alpha, x, y, ws);
    }

private:
    struct interface {
        virtual ~interface() = default;
        [[nodiscard]] virtual index rows() const = 0;
        [[nodiscard]] virtual index cols() const = 0;
        virtual void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const = 0;
        virtual void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const = 0;
    };
    template <class M>
    struct holder final : interface {
        explicit holder(M m) : map(std::move(m)) {}
        [[nodiscard]] index rows() const override { return map.rows(); }
        [[nodiscard]] index cols() const override { return map.cols(); }
        void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const override {
            map.add_product(alpha, x, y, ws);
        }
        void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const override {
            map.add_transposed_product(alpha, x, y, ws);
        }
        M map;
    };

    std::shared_ptr<const interface> self_;
};

/// The sum of maps of one shape, each with its own factor: base plus adapters, sparse plus low-rank.
template <real S>
class operator_sum {
public:
    using scalar = S;
    struct term {
        any_operator<S> map;
        S factor = S(1);
    };

    /// \pre at least one term, all of one shape.
    explicit operator_sum(std::vector<term> terms) : terms_(std::move(terms)) {
        detail::expects(!terms_.empty(), "operator_sum: needs at least one term");
        for (const auto& t : terms_) {
            detail::expects_shape("operator_sum", "every term", t.map.rows(), t.map.cols(), rows(), cols());
        }
    }

    [[nodiscard]] index rows() const { return terms_.front().map.rows(); }
    [[nodiscard]] index cols() const { return terms_.front().map.cols(); }
    [[nodiscard]] const std::vector<term>& terms() const noexcept { return terms_; }

    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        for (const auto& t : terms_) {
            t.map.add_product(alpha * t.factor, x, y, ws);
        }
    }
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        for (const auto& t : terms_) {
            t.map.add_transposed_product(alpha * t.factor, x, y, ws);
        }
    }

private:
    std::vector<term> terms_;
};

/// M X as a new matrix: the convenient form; allocates the result and its scratch.
template <operator_like M>
[[nodiscard]] matrix<operator_scalar<M>> apply(const M& m, const_column_view<operator_scalar<M>> x) {
    const auto& map = as_operator(m);
    workspace ws;
    matrix<operator_scalar<M>> y = matrix<operator_scalar<M>>::Zero(map.rows(), x.cols());
    map.add_product(operator_scalar<M>(1), x, column_view<operator_scalar<M>>(y), ws);
    return y;
}

/// M^T X as a new matrix.
template <operator_like M>
[[nodiscard]] matrix<operator_scalar<M>> apply_transposed(const M& m, const_column_view<operator_scalar<M>> x) {
    const auto& map = as_operator(m);
    workspace ws;
    matrix<operator_scalar<M>> y = matrix<operator_scalar<M>>::Zero(map.cols(), x.cols());
    map.add_transposed_product(operator_scalar<M>(1), x, column_view<operator_scalar<M>>(y), ws);
    return y;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_LINEAR_OPERATOR_HPP

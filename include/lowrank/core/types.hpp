// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_TYPES_HPP
#define LOWRANK_CORE_TYPES_HPP

/// \file
/// Scalars, matrices and borrowed views: the shapes everything else is written in.
///
///     lowrank::row_matrix<float> w(out, in);           // a weight, as every checkpoint stores it
///     lowrank::matrix<float> x(in, tokens);            // activations, one column per token
///     lowrank::const_column_view<float> v = x;         // borrowed, never copied
///
/// A view refuses at compile time what it cannot borrow (a row-major matrix, an expression). `Eigen::Ref` would copy
/// it silently instead.

#include <concepts>
#include <type_traits>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/scalar.hpp>

namespace lowrank::inline LOWRANK_ABI {

using index = Eigen::Index;

static_assert(std::same_as<matrix<float>, Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>> &&
              std::same_as<row_matrix<float>, Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> &&
              std::same_as<vector<float>, Eigen::Matrix<float, Eigen::Dynamic, 1>>);

namespace detail {

template <class D>
using plain_t = std::remove_cvref_t<D>;

template <class D>
concept eigen_dense = requires(const plain_t<D>& x) {
    typename plain_t<D>::Scalar;
    []<class E>(const Eigen::DenseBase<E>&) {}(x);
};

/// Has memory of its own that a view can point at, one element apart within a column (Order 0) or a row (Order 1).
template <class D, int Order>
concept borrowable = eigen_dense<D> && requires(const plain_t<D>& x) {
    x.data();
} &&((int(plain_t<D>::Flags) & int(Eigen::DirectAccessBit)) != 0) && (int(plain_t<D>::InnerStrideAtCompileTime) == 1) &&
    (int(plain_t<D>::IsRowMajor) == Order || bool(plain_t<D>::IsVectorAtCompileTime));

template <class D>
index outer_stride_of(const D& x, bool row_major) {
    // A vector's own outer stride is its length whichever way it lies; a view needs the distance between columns
    // (or rows), which is what the other dimension makes it.
    if constexpr (D::IsVectorAtCompileTime) {
        return row_major ? x.cols() : x.rows();
    } else {
        return x.outerStride();
    }
}

/// A borrowed block of memory with unit inner stride: `Eigen::Map` that converts from what it can borrow.
template <class S, int Order>
class strided_view
    : public Eigen::Map<std::conditional_t<std::is_const_v<S>,
                                           const Eigen::Matrix<std::remove_const_t<S>, Eigen::Dynamic, Eigen::Dynamic,
                                                               Order ? Eigen::RowMajor : Eigen::ColMajor>,
                                           Eigen::Matrix<std::remove_const_t<S>, Eigen::Dynamic, Eigen::Dynamic,
                                                         Order ? Eigen::RowMajor : Eigen::ColMajor>>,
                        Eigen::Unaligned, Eigen::OuterStride<>> {
    using plain = Eigen::Matrix<std::remove_const_t<S>, Eigen::Dynamic, Eigen::Dynamic,
                                Order ? Eigen::RowMajor : Eigen::ColMajor>;

public:
    using base =
        Eigen::Map<std::conditional_t<std::is_const_v<S>, const plain, plain>, Eigen::Unaligned, Eigen::OuterStride<>>;

    strided_view(S* data, index rows, index cols) : base(data, rows, cols, Eigen::OuterStride<>(Order ? cols : rows)) {}
    strided_view(S* data, index rows, index cols, index outer_stride)
        : base(data, rows, cols, Eigen::OuterStride<>(outer_stride)) {}

    /// Borrows `x`, whose memory must outlive the view.
    template <class D>
    requires(!std::derived_from<plain_t<D>, strided_view> && borrowable<D, Order> &&
             std::same_as<typename plain_t<D>::Scalar, std::remove_const_t<S>> &&
             (std::is_const_v<S> || !std::is_const_v<std::remove_pointer_t<decltype(std::declval<D&>().data())>>))
        strided_view(D&& x)  // NOLINT: conversion is the point
        : strided_view(x.data(), x.rows(), x.cols(), outer_stride_of(x, Order == 1)) {}

    strided_view(const strided_view&) = default;
    ~strided_view() = default;

    using base::operator=;
    strided_view& operator=(const strided_view& other) {
        base::operator=(other);
        return *this;
    }
};

}  // namespace detail

/// Borrowed column-major memory, rows one element apart: activations `in x n`, factors. Writable.
template <real S>
using column_view = detail::strided_view<S, 0>;

/// The same, read-only. `X` in every product is one of these.
template <real S>
using const_column_view = detail::strided_view<const S, 0>;

/// Borrowed row-major memory: a weight `out x in` as a checkpoint stores it. Writable.
template <storage T>
using weight_view = detail::strided_view<T, 1>;

/// The same, read-only.
template <storage T>
using const_weight_view = detail::strided_view<const T, 1>;

namespace detail {

/// Columns [first, first + count) of a view.
template <class S>
[[nodiscard]] strided_view<S, 0> some_columns(const strided_view<S, 0>& x, index first, index count) noexcept {
    return {const_cast<S*>(x.data()) + first * x.outerStride(), x.rows(), count, x.outerStride()};
}
/// Rows [first, first + count).
template <class S>
[[nodiscard]] strided_view<S, 0> some_rows(const strided_view<S, 0>& x, index first, index count) noexcept {
    return {const_cast<S*>(x.data()) + first, count, x.cols(), x.outerStride()};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_TYPES_HPP

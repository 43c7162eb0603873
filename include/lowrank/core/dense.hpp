// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_DENSE_HPP
#define LOWRANK_CORE_DENSE_HPP

/// \file
/// Products, triangular solves and sums of dense matrices, on views: the one thin layer below all linear algebra of the
/// library, compiled once for float and double.
///
///     lowrank::matrix<float> g = lowrank::product(lowrank::transposed(x), x);       // X^T X
///     lowrank::add_product(-1.0F, w, x, y);                                         // Y += -1 W X
///     lowrank::solve_right_upper(g, y);                                             // Y := Y G^-1, G upper triangular
///
/// Each different expression of Eigen's that multiplies or solves costs one to two seconds to compile; these functions
/// take any two strides, so a block, a transpose and a row-major matrix are one type here. A product with a weight and
/// few columns, without the heap, is in skinny_product.hpp.

#include <concepts>
#include <type_traits>

#include <Eigen/Core>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

class workspace;

/// A rows x cols matrix as it lies in memory: entry (i, j) is at data + i * row_stride + j * col_stride. Borrowed; T is
/// const for read-only.
template <class T>
class dense_view {
public:
    using stored = std::remove_const_t<T>;

    dense_view(T* data, index rows, index cols, index row_stride, index col_stride) noexcept
        : data_(data), rows_(rows), cols_(cols), row_stride_(row_stride), col_stride_(col_stride) {}

    /// Borrows any matrix, vector, block, map or transpose of Eigen's that lies in memory.
    template <class D>
    requires(detail::eigen_dense<D>&& std::same_as<typename detail::plain_t<D>::Scalar, stored>&& bool(
        int(detail::plain_t<D>::Flags) & int(Eigen::DirectAccessBit))) dense_view(D&& x)
    noexcept  // NOLINT: conversion is the point
        : dense_view(const_cast<T*>(x.data()), x.rows(), x.cols(), x.rowStride(), x.colStride()) {
        static_assert(std::is_const_v<T> || !std::is_const_v<std::remove_reference_t<D>> ||
                          std::derived_from<detail::plain_t<D>, detail::strided_view<stored, 0>> ||
                          std::derived_from<detail::plain_t<D>, detail::strided_view<stored, 1>>,
                      "a writable view of a matrix that is const");
    }
    dense_view(const dense_view<stored>& x) noexcept requires(std::is_const_v<T>)
        : dense_view(x.data(), x.rows(), x.cols(), x.row_stride(), x.col_stride()) {}
    dense_view(const dense_view&) noexcept = default;
    dense_view& operator=(const dense_view&) noexcept = default;
    ~dense_view() = default;

    [[nodiscard]] T* data() const noexcept { return data_; }
    [[nodiscard]] index rows() const noexcept { return rows_; }
    [[nodiscard]] index cols() const noexcept { return cols_; }
    [[nodiscard]] index row_stride() const noexcept { return row_stride_; }
    [[nodiscard]] index col_stride() const noexcept { return col_stride_; }
    [[nodiscard]] T& operator()(index i, index j) const noexcept { return data_[i * row_stride_ + j * col_stride_]; }
    [[nodiscard]] T* column(index j) const noexcept { return data_ + j * col_stride_; }

    /// Rows [row, row + rows) and columns [col, col + cols).
    [[nodiscard]] dense_view block(index row, index col, index rows, index cols) const noexcept {
        return {data_ + row * row_stride_ + col * col_stride_, rows, cols, row_stride_, col_stride_};
    }
    [[nodiscard]] dense_view middle_rows(index first, index count) const noexcept {
        return block(first, 0, count, cols_);
    }
    [[nodiscard]] dense_view middle_cols(index first, index count) const noexcept {
        return block(0, first, rows_, count);
    }

private:
    T* data_;
    index rows_, cols_, row_stride_, col_stride_;
};

namespace detail {

template <class D>
struct view_stored {};
template <class T>
struct view_stored<dense_view<T>> {
    using type = std::remove_const_t<T>;
};
template <eigen_dense D>
struct view_stored<D> {
    using type = typename D::Scalar;
};

/// A dense matrix of a stored scalar, in memory or as an expression.
template <class D>
concept dense_expression = eigen_dense<D> && storage<typename plain_t<D>::Scalar>;

/// x itself if it lies in memory, else its value: how what reads a matrix takes any expression.
template <dense_expression D>
[[nodiscard]] decltype(auto) evaluated(const D& x) {
    if constexpr ((int(D::Flags) & int(Eigen::DirectAccessBit)) != 0) {
        return (x);
    } else {
        return x.eval();
    }
}

/// The scalar that the entries of a matrix or view are stored in.
template <class D>
using stored_of = typename view_stored<plain_t<D>>::type;

/// C += alpha A B, entries of A and B taken to S. `lower`: of a square C only what is on and below the diagonal is
/// wanted; above it anything may be written. Buffers come from `ws`, if there is one, else from the heap.
template <real S, storage TA, storage TB>
void gemm(S alpha, const dense_view<const TA>& a, const dense_view<const TB>& b, const dense_view<S>& c, bool lower,
          workspace* ws = nullptr);

/// The same for one column, A and x in the same scalar.
template <real S>
void gemv(S alpha, const dense_view<const S>& a, const S* x, index x_stride, S* y, index y_stride);

/// y += alpha A x for a symmetric A of which the lower triangle is read, column-major.
template <real S>
void symv_lower(S alpha, const dense_view<const S>& a, const S* x, S* y);

template <real S>
[[nodiscard]] S dot_of(const S* x, const S* y, index n);
template <real S>
void axpy(S alpha, const S* x, S* y, index n);
/// Columns x, y := c x - s y, s x + c y.
template <real S>
void rotate(S* x, S* y, index n, S c, S s);

template <real S>
void solve_right_upper_of(const dense_view<const S>& r, const dense_view<S>& y);
template <real S>
[[nodiscard]] bool cholesky_of(const dense_view<S>& a);

}  // namespace detail

/// X^T as a view.
template <class D>
[[nodiscard]] dense_view<const detail::stored_of<D>> transposed(const D& x) noexcept {
    const dense_view<const detail::stored_of<D>> v(x);
    return {v.data(), v.cols(), v.rows(), v.col_stride(), v.row_stride()};
}

/// C += alpha A B. Entries of A and B that are stored in another type are converted to the scalar of C as they are read.
///
/// \pre  Shapes agree; C overlaps neither A nor B.
/// \cost 2 m n k flops.
/// \note Bit-equal for one binary and CPU.
template <class A, class B, class C>
void add_product(detail::stored_of<C> alpha, const A& a, const B& b, C&& c) {
    using S = detail::stored_of<C>;
    const dense_view<const detail::stored_of<A>> left(a);
    const dense_view<const detail::stored_of<B>> right(b);
    const dense_view<S> to(c);
    detail::expects_shape("add_product", "b", right.rows(), right.cols(), left.cols(), right.cols());
    detail::expects_shape("add_product", "c", to.rows(), to.cols(), left.rows(), right.cols());
    detail::gemm<S, detail::stored_of<A>, detail::stored_of<B>>(alpha, left, right, to, false);
}

/// A B as a new matrix, in the scalar S.
template <real S, class A, class B>
[[nodiscard]] matrix<S> product_in(const A& a, const B& b) {
    const dense_view<const detail::stored_of<A>> left(a);
    const dense_view<const detail::stored_of<B>> right(b);
    matrix<S> c;
    c.setZero(left.rows(), right.cols());
    add_product(S(1), left, right, c);
    return c;
}

/// A B as a new matrix.
template <class A, class B>
[[nodiscard]] matrix<detail::stored_of<A>> product(const A& a, const B& b) {
    return product_in<detail::stored_of<A>>(a, b);
}

/// A^T A in double.
/// \cost m n^2 flops.
template <class A>
[[nodiscard]] matrix<double> gram(const A& a) {
    using T = detail::stored_of<A>;
    const dense_view<const T> v(a);
    matrix<double> g;
    g.setZero(v.cols(), v.cols());
    detail::gemm<double, T, T>(1.0, transposed(v), v, dense_view<double>(g), true);
    for (index j = 1; j < g.cols(); ++j) {
        for (index i = 0; i < j; ++i) {
            g(i, j) = g(j, i);
        }
    }
    return g;
}

/// Y := Y R^-1 for an upper triangular R (n x n), whose lower part is not read.
/// \cost m n^2 flops.
template <class R, class Y>
void solve_right_upper(const R& r, Y&& y) {
    using S = detail::stored_of<Y>;
    detail::solve_right_upper_of<S>(dense_view<const S>(r), dense_view<S>(y));
}

/// Y := Y L^-T for a lower triangular L, whose upper part is not read.
template <class L, class Y>
void solve_right_lower_transposed(const L& l, Y&& y) {
    using S = detail::stored_of<Y>;
    detail::solve_right_upper_of<S>(transposed(l), dense_view<S>(y));
}

/// A = L L^T, in place, for a symmetric positive definite A of which the lower triangle is read; the upper one is left
/// as it is. False, with A half done, if A is not positive definite in its precision.
/// \cost n^3 / 3 flops.
template <class A>
[[nodiscard]] bool cholesky(A&& a) {
    using S = detail::stored_of<A>;
    return detail::cholesky_of<S>(dense_view<S>(a));
}

// ---- Copies, scalings and sums.

namespace detail {

template <real S>
void solve_left_upper_of(const dense_view<const S>& r, const dense_view<S>& y);
template <real S, storage T>
void copy_into(const dense_view<const T>& a, S* to);
/// `gemm` in one scalar, with a frame of the workspace of its own.
template <real S>
void gemm_in(S alpha, const dense_view<const S>& a, const dense_view<const S>& b, const dense_view<S>& c,
             workspace& ws);
template <real S>
[[nodiscard]] S max_abs_of(const dense_view<const S>& a);
template <storage T>
[[nodiscard]] double sum_of_squares(const T* x, index count, double scale = 1.0);
template <storage T>
[[nodiscard]] double frobenius_of(const dense_view<const T>& a);
template <storage T>
void add_column_squares(double factor, const dense_view<const T>& a, double* sums);

}  // namespace detail

/// Y := R^-1 Y for an upper triangular R (n x n), whose lower part is not read.
/// \cost n^2 flops for each column of Y.
template <class R, class Y>
void solve_left_upper(const R& r, Y&& y) {
    using S = detail::stored_of<Y>;
    detail::solve_left_upper_of<S>(dense_view<const S>(r), dense_view<S>(y));
}

/// A as a new matrix in the scalar S: a conversion, a block, or with `transposed` a transpose.
template <real S, class A>
[[nodiscard]] matrix<S> copy_in(const A& a) {
    const dense_view<const detail::stored_of<A>> from(a);
    matrix<S> to(from.rows(), from.cols());
    detail::copy_into<S, detail::stored_of<A>>(from, to.data());
    return to;
}

/// Columns [first, first + count) of A as a new matrix of the same scalar.
template <class A>
[[nodiscard]] matrix<detail::stored_of<A>> columns_of(const A& a, index first, index count) {
    using S = detail::stored_of<A>;
    return copy_in<S>(dense_view<const S>(a).middle_cols(first, count));
}

/// The first `count` entries of x in the scalar S.
template <real S, class X>
[[nodiscard]] vector<S> head_in(const X& x, index count) {
    vector<S> out(count);
    for (index i = 0; i < count; ++i) {
        out(i) = static_cast<S>(x(i));
    }
    return out;
}

/// Y := diag(d) Y.
template <class V, class Y>
void scale_rows(const V& d, Y&& y) {
    using S = detail::stored_of<Y>;
    const dense_view<S> to(y);
    for (index j = 0; j < to.cols(); ++j) {
        for (index i = 0; i < to.rows(); ++i) {
            to(i, j) *= static_cast<S>(d(i));
        }
    }
}

/// Y := Y diag(d).
template <class Y, class V>
void scale_cols(Y&& y, const V& d) {
    using S = detail::stored_of<Y>;
    const dense_view<S> to(y);
    for (index j = 0; j < to.cols(); ++j) {
        for (index i = 0; i < to.rows(); ++i) {
            to(i, j) *= static_cast<S>(d(j));
        }
    }
}

/// Y += alpha X.
template <class X, class Y>
void add_scaled(detail::stored_of<Y> alpha, const X& x, Y&& y) {
    using S = detail::stored_of<Y>;
    const dense_view<const S> from(x);
    const dense_view<S> to(y);
    for (index j = 0; j < to.cols(); ++j) {
        for (index i = 0; i < to.rows(); ++i) {
            to(i, j) += alpha * from(i, j);
        }
    }
}

/// Y += alpha diag(d) X.
template <class V, class X, class Y>
void add_scaled_rows(detail::stored_of<Y> alpha, const V& d, const X& x, Y&& y) {
    using S = detail::stored_of<Y>;
    const dense_view<const S> from(x);
    const dense_view<S> to(y);
    for (index j = 0; j < to.cols(); ++j) {
        for (index i = 0; i < to.rows(); ++i) {
            to(i, j) += alpha * d(i) * from(i, j);
        }
    }
}

/// sums_i += sum_j x_ij y_ij: the diagonal of X Y^T.
template <class X, class Y, class V>
void add_row_dots(const X& x, const Y& y, V&& sums) {
    const dense_view<const detail::stored_of<X>> a(x);
    const dense_view<const detail::stored_of<Y>> b(y);
    for (index j = 0; j < a.cols(); ++j) {
        for (index i = 0; i < a.rows(); ++i) {
            sums(i) += a(i, j) * b(i, j);
        }
    }
}

/// C += alpha A B^T for tall or wide A and B of few columns or rows, with buffers from `ws`: how gradients of factors
/// are summed over a batch. \cost 2 m n k flops; nothing from the heap once the workspace is warm.
template <class A, class B, class C>
void add_outer_product(detail::stored_of<C> alpha, const A& a, const B& b, C&& c, workspace& ws) {
    using S = detail::stored_of<C>;
    const dense_view<const S> left(a), right = transposed(b);
    const dense_view<S> to(c);
    detail::expects_shape("add_outer_product", "b", right.rows(), right.cols(), left.cols(), to.cols());
    detail::expects_shape("add_outer_product", "c", to.rows(), to.cols(), left.rows(), right.cols());
    detail::gemm_in<S>(alpha, left, right, to, ws);
}

/// max |a_ij|, and 0 for an empty A. \pre A is finite.
template <class A>
[[nodiscard]] detail::stored_of<A> max_abs(const A& a) {
    return detail::max_abs_of<detail::stored_of<A>>(dense_view<const detail::stored_of<A>>(a));
}

/// ||A||_F in double; no square overflows or underflows. \pre A is finite.
template <class A>
[[nodiscard]] double norm_of(const A& a) {
    return detail::frobenius_of<detail::stored_of<A>>(dense_view<const detail::stored_of<A>>(a));
}

/// ||a_j||^2 of each column in double.
template <class A>
[[nodiscard]] vector<double> column_squares(const A& a) {
    const dense_view<const detail::stored_of<A>> from(a);
    vector<double> sums;
    sums.setZero(from.cols());
    detail::add_column_squares<detail::stored_of<A>>(1.0, from, sums.data());
    return sums;
}

// ---- General systems.

namespace detail {

template <real S>
[[nodiscard]] bool solve_of(const dense_view<S>& a, const dense_view<S>& b);

}  // namespace detail

/// B := A^-1 B for a square A, by LU with partial pivoting; A is overwritten by its factors. False, with B of no use, if
/// a pivot is zero or NaN: A is singular, or not finite.
/// \cost 2/3 n^3 flops, and 2 n^2 for each column of B.
template <class A, class B>
[[nodiscard]] bool solve(A&& a, B&& b) {
    using S = detail::stored_of<B>;
    const dense_view<S> factors(a), rhs(b);
    detail::expects_shape("solve", "a", factors.rows(), factors.cols(), rhs.rows(), rhs.rows());
    return detail::solve_of<S>(factors, rhs);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/core/dense.ipp>
#endif

#endif  // LOWRANK_CORE_DENSE_HPP

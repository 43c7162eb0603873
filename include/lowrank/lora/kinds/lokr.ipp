// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LOKR_IPP
#define LOWRANK_LORA_KINDS_LOKR_IPP

#include <lowrank/lora/kinds/lokr.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
matrix<S> lokr_factor<S>::dense() const {
    return whole() ? left : product(left, right);
}

template <real S>
matrix<S> lokr_factor<S>::right_or_identity() const {
    if (!whole()) {
        return right;
    }
    matrix<S> identity;
    identity.setIdentity(left.cols(), left.cols());
    return identity;
}

template <real S>
void kronecker_operator<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("kronecker_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
    detail::expects_shape("kronecker_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
    const workspace::frame scope(ws);
    auto t = ws.take<S>(w2.rows(), w1.cols());
    for (index j = 0; j < x.cols(); ++j) {
        const const_column_view<S> in(x.data() + j * x.outerStride(), w2.cols(), w1.cols());
        column_view<S> out(y.data() + j * y.outerStride(), w2.rows(), w1.rows());
        t.setZero();
        detail::gemm_in<S>(S(1), w2, in, t, ws);
        detail::gemm_in<S>(alpha * factor, t, transposed(w1), out, ws);
    }
}

template <real S>
void kronecker_operator<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y,
                                                   workspace& ws) const {
    detail::expects_shape("kronecker_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
    detail::expects_shape("kronecker_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
    const workspace::frame scope(ws);
    auto t = ws.take<S>(w2.cols(), w1.rows());
    for (index j = 0; j < x.cols(); ++j) {
        const const_column_view<S> in(x.data() + j * x.outerStride(), w2.rows(), w1.rows());
        column_view<S> out(y.data() + j * y.outerStride(), w2.cols(), w1.cols());
        t.setZero();
        detail::gemm_in<S>(S(1), transposed(w2), in, t, ws);
        detail::gemm_in<S>(alpha * factor, t, w1, out, ws);
    }
}

template <real S>
void lokr_adapter<S>::add_rows(double factor, index first, column_view<double> to) const {
    const auto row_of = [](const lokr_factor<S>& f, index i) {
        const dense_view<const S> left = dense_view<const S>(f.left).middle_rows(i, 1);
        return f.whole() ? copy_in<double>(left) : product_in<double>(left, f.right);
    };
    const double scale = factor * lora_scaling(alpha, r, false);
    const index width = w2.cols();
    for (index c = 0; c < to.cols(); ++c) {
        const matrix<double> outer = row_of(w1, (first + c) / w2.rows());
        const matrix<double> inner = row_of(w2, (first + c) % w2.rows());
        for (index j = 0; j < outer.cols(); ++j) {
            for (index k = 0; k < width; ++k) {
                to(j * width + k, c) += (scale * outer(0, j)) * inner(0, k);
            }
        }
    }
}

namespace detail {

/// kron(a, b) times a factor.
template <real S>
matrix<S> kronecker(S factor, const matrix<S>& a, const matrix<S>& b) {
    matrix<S> k;
    k.setZero(a.rows() * b.rows(), a.cols() * b.cols());
    for (index j = 0; j < a.cols(); ++j) {
        for (index i = 0; i < a.rows(); ++i) {
            add_scaled(factor * a(i, j), b, dense_view<S>(k).block(i * b.rows(), j * b.cols(), b.rows(), b.cols()));
        }
    }
    return k;
}

/// The gradients of a and b from that of factor kron(a, b).
template <real S>
std::pair<matrix<S>, matrix<S>> kronecker_backward(S factor, const matrix<S>& a, const matrix<S>& b,
                                                   const matrix<S>& dk) {
    std::pair<matrix<S>, matrix<S>> g;
    g.first.setZero(a.rows(), a.cols());
    g.second.setZero(b.rows(), b.cols());
    for (index j = 0; j < a.cols(); ++j) {
        for (index i = 0; i < a.rows(); ++i) {
            const auto part = dense_view<const S>(dk).block(i * b.rows(), j * b.cols(), b.rows(), b.cols());
            add_row_dots(part, b, [&](index) -> S& { return g.first(i, j); });
            g.first(i, j) *= factor;
            add_scaled(factor * a(i, j), part, g.second);
        }
    }
    return g;
}

/// Adds the gradient of a factor's parameters, given that of the matrix it stands for.
template <real S>
S* pull_back_factor(const lokr_factor<S>& f, const matrix<S>& g, S* out) {
    if (f.whole()) {
        return add_entries(g, out);
    }
    out = add_entries(product(g, transposed(f.right)), out);
    return add_entries(product(transposed(f.left), g), out);
}

}  // namespace detail

template <real S>
low_rank<S> lokr_adapter<S>::delta() const {
    return {.left = detail::kronecker(scaling(), w1.left, w2.left),
            .right = detail::kronecker(S(1), w1.right_or_identity(), w2.right_or_identity())};
}

template <real S>
lokr_adapter<S> lokr_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    lokr_adapter out{.alpha = alpha, .r = r};
    auto [left1, left2] = detail::kronecker_backward(scaling(), w1.left, w2.left, g.left);
    auto [right1, right2] = detail::kronecker_backward(S(1), w1.right_or_identity(), w2.right_or_identity(), g.right);
    out.w1.left = std::move(left1);
    out.w2.left = std::move(left2);
    if (!w1.whole()) {
        out.w1.right = std::move(right1);
    }
    if (!w2.whole()) {
        out.w2.right = std::move(right2);
    }
    return out;
}

LOWRANK_BODY std::pair<index, index> lokr_factorization(index dimension, index factor) {
    detail::expects(dimension >= 1 && (factor == -1 || factor >= 1),
                    "lokr_factorization: dimension must be positive, factor positive or -1");
    index smaller = 1;
    if (factor > 0 && dimension % factor == 0) {
        smaller = factor;
    } else {
        const index largest = factor == -1 ? dimension : factor;
        for (index d = 1; d <= largest && d * d <= dimension; ++d) {
            smaller = dimension % d == 0 ? d : smaller;
        }
    }
    const index other = dimension / smaller;
    return smaller <= other ? std::pair(smaller, other) : std::pair(other, smaller);
}

template <real S>
lokr_adapter<S> make_lokr(index out, index in, const lokr_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1, "make_lokr: out, in and r must be at least 1");
    const std::pair<index, index> outs = lokr_factorization(out, options.decompose_factor);
    const std::pair<index, index> ins = lokr_factorization(in, options.decompose_factor);
    const index r = options.r;
    std::uint64_t part = 4 * options.stream;
    const auto uniform = [&](index rows, index cols) {
        matrix<S> m(rows, cols);
        const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(cols)));
        fill_uniform(m, -bound, bound, philox(options.seed, part++));
        return m;
    };
    lokr_adapter<S> a{.alpha = options.alpha, .r = r};
    const bool splits = options.decompose_both && 2 * r < std::max(outs.first, ins.first);
    a.w1.left.setZero(outs.first, splits ? r : ins.first);
    if (splits) {
        a.w1.right = uniform(r, ins.first);
    }
    if (2 * r < std::max(outs.second, ins.second)) {
        a.w2.left = uniform(outs.second, r);
        a.w2.right = uniform(r, ins.second);
    } else {
        a.w2.left = uniform(outs.second, ins.second);
    }
    return a;
}

template <real S>
void applied_lokr<S>::backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy,
                               gradient& g, column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
    const matrix<S>& w1 = map_.w1;
    const matrix<S>& w2 = map_.w2;
    const S factor = alpha * map_.factor;
    const workspace::frame scope(ws);
    auto t = ws.take<S>(w2.rows(), w1.cols());
    for (index j = 0; j < x.cols(); ++j) {
        const const_column_view<S> in(x.data() + j * x.outerStride(), w2.cols(), w1.cols());
        const const_column_view<S> back(dy.data() + j * dy.outerStride(), w2.rows(), w1.rows());
        t.setZero();
        detail::gemm_in<S>(S(1), w2, in, t, ws);
        detail::gemm_in<S>(factor, transposed(back), t, g.w1, ws);
        t.setZero();
        detail::gemm_in<S>(S(1), back, w1, t, ws);
        add_outer_product(factor, t, in, g.w2, ws);
    }
    if (dx != nullptr) {
        map_.add_transposed_product(alpha, dy, *dx, ws);
    }
}

template <real S>
void applied_lokr<S>::pull_back(const gradient& g, S* out) const {
    detail::pull_back_factor(adapter.w2, g.w2, detail::pull_back_factor(adapter.w1, g.w1, out));
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_LOKR_OF(S)                 \
    template struct lokr_factor<S>;        \
    template struct kronecker_operator<S>; \
    template struct lokr_adapter<S>;       \
    template lokr_adapter<S> make_lokr<S>(index, index, const lokr_options&);
LOWRANK_LOKR_OF(float)
LOWRANK_LOKR_OF(double)
#undef LOWRANK_LOKR_OF
template class applied_lokr<float>;
template class applied_lokr<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LOKR_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_MISS_IPP
#define LOWRANK_LORA_KINDS_MISS_IPP

#include <lowrank/lora/kinds/miss.hpp>

#include <algorithm>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// sums_k += x_k + x_{k + r} + ... for sums of r rows.
template <real S>
void add_group_sums(const dense_view<const S>& x, const dense_view<S>& sums) {
    for (index first = 0; first < x.rows(); first += sums.rows()) {
        const index count = std::min(sums.rows(), x.rows() - first);
        add_scaled(S(1), x.middle_rows(first, count), sums.middle_rows(0, count));
    }
}

/// Every group of y gets the rows of t: the transpose.
template <real S>
void add_to_groups(const dense_view<const S>& t, const dense_view<S>& y) {
    for (index first = 0; first < y.rows(); first += t.rows()) {
        const index count = std::min(t.rows(), y.rows() - first);
        add_scaled(S(1), t.middle_rows(0, count), y.middle_rows(first, count));
    }
}

}  // namespace detail

template <real S>
void miss_operator<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("miss_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
    detail::expects_shape("miss_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
    if (detail::all_zero(left)) {  // or no group at all
        return;
    }
    const workspace::frame scope(ws);
    auto sums = ws.take<S>(left.cols(), x.cols());
    sums.setZero();
    detail::add_group_sums<S>(x, sums);
    lowrank::add_product<S, 0>(alpha, const_column_view<S>(left), sums, y, ws);
}

template <real S>
void miss_operator<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("miss_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
    detail::expects_shape("miss_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
    if (left.cols() == 0) {
        return;
    }
    const workspace::frame scope(ws);
    auto t = ws.take<S>(left.cols(), x.cols());
    t.setZero();
    lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(left), x, t, ws);
    detail::add_to_groups<S>(t, y);
}

template <real S>
void miss_adapter<S>::check() const {
    detail::expects(rank() >= 1 && miss_block.cols() >= 1 && out % miss_block.cols() == 0,
                    "miss_adapter: miss_block needs rows, and a number of columns that divides the outputs");
}

template <real S>
matrix<S> miss_adapter<S>::full() const {
    check();
    matrix<S> all;
    all.setZero(out, rank());
    detail::add_to_groups<S>(transposed(miss_block), all);
    return all;
}

template <real S>
low_rank<S> miss_adapter<S>::delta() const {
    low_rank<S> change{.left = full()};
    change.right.setZero(rank(), in);
    for (index j = 0; j < in; ++j) {
        change.right(j % rank(), j) = S(1);
    }
    return change;
}

template <real S>
miss_adapter<S> miss_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    detail::expects_shape("miss_adapter::pull_back", "gradient.left", g.left.rows(), g.left.cols(), out, rank());
    miss_adapter d = detail::with_zero_parameters(*this);
    const dense_view<S> turned(d.miss_block.data(), d.miss_block.cols(), d.miss_block.rows(), d.miss_block.rows(), 1);
    detail::add_group_sums<S>(g.left, turned);
    return d;
}

template <real S>
void miss_adapter<S>::backward(const_column_view<S> x, const_column_view<S> dy, miss_adapter& gradient,
                               column_view<S>* dx, workspace& ws) const {
    detail::expects_shape("miss_adapter::backward", "x", x.rows(), x.cols(), in, dy.cols());
    detail::expects_shape("miss_adapter::backward", "dy", dy.rows(), dy.cols(), out, x.cols());
    check();
    const workspace::frame scope(ws);
    auto sums = ws.take<S>(rank(), x.cols());
    sums.setZero();
    detail::add_group_sums<S>(x, sums);
    auto d = ws.take<S>(miss_block.cols(), x.cols());
    d.setZero();
    detail::add_group_sums<S>(dy, d);
    add_outer_product(S(1), sums, d, gradient.miss_block, ws);
    if (dx != nullptr) {
        sums.setZero();
        lowrank::add_product<S, 0>(S(1), const_column_view<S>(miss_block), d, sums, ws);
        detail::add_to_groups<S>(sums, *dx);
    }
}

template <real S>
miss_adapter<S> make_miss(index out, index in, const miss_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1, "make_miss: out, in and r must be at least 1");
    detail::expects(options.mini_r >= 0 && (options.mini_r == 0 || out % options.mini_r == 0),
                    "make_miss: mini_r must divide the outputs");
    miss_adapter<S> a{.out = out, .in = in};
    a.miss_block.setZero(options.r, options.mini_r == 0 ? out : options.mini_r);
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_MISS_OF(S)            \
    template struct miss_operator<S>; \
    template struct miss_adapter<S>;  \
    template miss_adapter<S> make_miss<S>(index, index, const miss_options&);
LOWRANK_MISS_OF(float)
LOWRANK_MISS_OF(double)
#undef LOWRANK_MISS_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_MISS_IPP

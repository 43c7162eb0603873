// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_MISS_BAT_IPP
#define LOWRANK_LORA_KINDS_MISS_BAT_IPP

#include <lowrank/lora/kinds/miss_bat.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/lora/adapter_kind.ipp>
#include <lowrank/lora/kinds/miss.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
miss_bat_adapter<S> make_miss_bat(index out, index in, const miss_bat_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1, "make_miss_bat: out, in and r must be at least 1");
    miss_bat_adapter<S> a{.in = in};
    a.miss_block.setZero(out, options.r);
    a.check();
    return a;
}

namespace detail {

/// Some rows of a weight in memory, as a factor.
template <storage T>
struct rows_of_weight {
    const_weight_view<T> w;
    using S = compute_t<T>;

    [[nodiscard]] const_weight_view<T> some(index first, index count) const {
        return {w.data() + first * w.outerStride(), count, w.cols(), w.outerStride()};
    }
    void add_product(index first, S alpha, const const_column_view<S>& x, const column_view<S>& y,
                     workspace& ws) const {
        lowrank::add_product<T, 1>(alpha, some(first, y.rows()), x, y, ws);
    }
    void add_transposed_product(index first, const const_column_view<S>& x, const column_view<S>& y,
                                workspace& ws) const {
        lowrank::add_transposed_product<T, 1>(S(1), some(first, x.rows()), x, y, ws);
    }
};

/// The same of a weight that can only be multiplied with, as a whole.
template <real S>
struct rows_of_operator {
    operator_reference<S> w;

    void add_product(index first, S alpha, const const_column_view<S>& x, const column_view<S>& y,
                     workspace& ws) const {
        const workspace::frame scope(ws);
        auto all = ws.take<S>(w.rows(), x.cols());
        all.setZero();
        w.add_product(alpha, x, all, ws);
        column_view<S> to = y;
        add_scaled(S(1), some_rows(all, first, y.rows()), to);
    }
    void add_transposed_product(index first, const const_column_view<S>& x, const column_view<S>& y,
                                workspace& ws) const {
        const workspace::frame scope(ws);
        auto all = ws.take<S>(w.rows(), x.cols());
        all.setZero();
        auto part = some_rows(all, first, x.rows());
        add_scaled(S(1), x, part);
        w.add_transposed_product(S(1), all, y, ws);
    }
};

/// Every r rows of `to` += M or M^T times those of `from`; both lie without gaps.
template <real S>
void add_small_products(const dense_view<const S>& m, const column_view<S>& from, const column_view<S>& to,
                        workspace& ws) {
    const index r = m.rows();
    const index n = from.size() / r;
    gemm_in<S>(S(1), m, dense_view<const S>(from.data(), r, n, 1, r),
               dense_view<S>(const_cast<S*>(to.data()), r, n, 1, r), ws);
}

/// Y_o += alpha (W_o (M_o x_1; M_o x_2; ...) + M_o (x_1 + x_2 + ...)). A zero M_o leaves Y_o untouched.
template <class Rows, real S>
void add_bat_product(const Rows& w, const miss_bat_adapter<S>& a, S alpha, const const_column_view<S>& x,
                     const column_view<S>& y, workspace& ws) {
    const workspace::frame scope(ws);
    const index r = a.rank();
    auto packed = ws.take<S>(a.in, x.cols());  // no gaps, so that it is r x (in / r * n) too
    packed.setZero();
    add_scaled(S(1), x, packed);
    auto sums = ws.take<S>(r, x.cols());
    sums.setZero();
    add_group_sums<S>(x, sums);
    auto turned = ws.take<S>(a.in, x.cols());
    for (index first = 0; first < a.out(); first += r) {
        const auto m = dense_view<const S>(a.miss_block).middle_rows(first, r);
        if (all_zero(m)) {
            continue;
        }
        turned.setZero();
        add_small_products<S>(m, packed, turned, ws);
        column_view<S> y_part = some_rows(y, first, r);
        w.add_product(first, alpha, turned, y_part, ws);
        gemm_in<S>(alpha, m, sums, y_part, ws);
    }
}

/// dX_i += alpha sum_o M_o^T ((W_o^T dY_o)_i + dY_o) and, with X, dM_o += sum_i (W_o^T dY_o)_i X_i^T + dY_o sums^T.
template <class Rows, real S>
void bat_back(const Rows& w, const miss_bat_adapter<S>& a, S alpha, const const_column_view<S>& dy,
              const const_column_view<S>* x, miss_bat_adapter<S>* gradient, column_view<S>* dx, workspace& ws) {
    const workspace::frame scope(ws);
    const index r = a.rank();
    const index n = dy.cols();
    auto t = ws.take<S>(a.in, n);
    auto packed = ws.take<S>(x != nullptr ? a.in : 0, n);
    auto sums = ws.take<S>(x != nullptr ? r : 0, n);
    if (x != nullptr) {
        packed.setZero();
        add_scaled(S(1), *x, packed);
        sums.setZero();
        add_group_sums<S>(*x, sums);
    }
    auto back = ws.take<S>(dx != nullptr ? a.in : 0, n);
    back.setZero();
    for (index first = 0; first < a.out(); first += r) {
        const const_column_view<S> dy_part = some_rows(dy, first, r);
        const auto m = dense_view<const S>(a.miss_block).middle_rows(first, r);
        const bool moves = dx != nullptr && !all_zero(m);
        if (x == nullptr && !moves) {
            continue;
        }
        t.setZero();
        w.add_transposed_product(first, dy_part, t, ws);
        if (x != nullptr) {
            const auto g = dense_view<S>(gradient->miss_block).middle_rows(first, r);
            const index blocks = t.size() / r;
            add_outer_product(S(1), const_column_view<S>(t.data(), r, blocks),
                              const_column_view<S>(packed.data(), r, blocks), g, ws);
            add_outer_product(S(1), dy_part, sums, g, ws);
        }
        if (moves) {
            add_to_groups<S>(dy_part, t);
            add_small_products<S>(transposed(m), t, back, ws);
        }
    }
    if (dx != nullptr) {
        add_scaled(alpha, back, *dx);
    }
}

template <real S>
bat_blocks make_bat_blocks(const miss_bat_adapter<S>& a) {
    a.check();
    bat_blocks blocks{.m = copy_in<double>(a.miss_block), .inverse = {}};
    const index r = a.rank();
    blocks.inverse.setZero(a.out(), r);
    for (index first = 0; first < a.out(); first += r) {
        matrix<double> sum = copy_in<double>(dense_view<const double>(blocks.m).middle_rows(first, r));
        matrix<double> inverse;
        inverse.setIdentity(r, r);
        for (index i = 0; i < r; ++i) {
            sum(i, i) += 1;
        }
        bool fine = solve(sum, inverse);
        for (const double x : entries(inverse)) {
            fine = fine && std::isfinite(x);
        }
        if (fine) {
            add_scaled(1.0, inverse, dense_view<double>(blocks.inverse).middle_rows(first, r));
        }
    }
    return blocks;
}

LOWRANK_BODY void turn_bat_rows(const bat_blocks& blocks, bool back, index first, const column_view<double>& rows) {
    const index r = blocks.m.cols();
    std::vector<double> old(static_cast<std::size_t>(r));
    double* row = const_cast<double*>(rows.data());
    for (index k = 0; k < rows.cols(); ++k, row += rows.outerStride()) {
        const index block = (first + k) / r * r;
        const matrix<double>& m = back ? blocks.inverse : blocks.m;
        for (index i = 0; i < rows.rows(); i += r) {
            for (index j = 0; j < r; ++j) {
                old[static_cast<std::size_t>(j)] = row[i + j] - (back ? blocks.m(first + k, j) : 0.0);
            }
            for (index j = 0; j < r; ++j) {
                const double sum = dot_of(&m(block, j), old.data(), r);
                row[i + j] = back ? sum : old[static_cast<std::size_t>(j)] + sum + blocks.m(first + k, j);
            }
        }
    }
}

}  // namespace detail

template <storage T>
void miss_bat_operator<T>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("miss_bat_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
    detail::expects_shape("miss_bat_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
    detail::add_bat_product(detail::rows_of_weight<T>{w_}, adapter_, alpha, x, y, ws);
}

template <storage T>
void miss_bat_operator<T>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y,
                                                  workspace& ws) const {
    detail::expects_shape("miss_bat_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
    detail::expects_shape("miss_bat_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
    detail::bat_back<detail::rows_of_weight<T>, S>({w_}, adapter_, alpha, x, nullptr, nullptr, &y, ws);
}

template <storage T>
void miss_bat_operator<T>::backward(const_column_view<S> x, const_column_view<S> dy, miss_bat_adapter<S>& gradient,
                                    column_view<S>* dx, workspace& ws) const {
    detail::expects_shape("miss_bat_operator::backward", "x", x.rows(), x.cols(), cols(), dy.cols());
    detail::expects_shape("miss_bat_operator::backward", "dy", dy.rows(), dy.cols(), rows(), x.cols());
    detail::expects_shape("miss_bat_operator::backward", "gradient", gradient.miss_block.rows(),
                          gradient.miss_block.cols(), adapter_.out(), adapter_.rank());
    detail::bat_back<detail::rows_of_weight<T>, S>({w_}, adapter_, S(1), dy, &x, &gradient, dx, ws);
}

template <real S>
void applied_miss_bat<S>::add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                      workspace& ws, const dropout_key& /*key*/) const {
    base.add_product(alpha, x, y, ws);
    detail::add_bat_product(detail::rows_of_operator<S>{base}, adapter, alpha, x, y, ws);
}

template <real S>
void applied_miss_bat<S>::add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x,
                                                 column_view<S> y, workspace& ws) const {
    base.add_transposed_product(alpha, x, y, ws);
    detail::bat_back<detail::rows_of_operator<S>, S>({base}, adapter, alpha, x, nullptr, nullptr, &y, ws);
}

template <real S>
void applied_miss_bat<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                                   gradient& g, column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
    detail::with_scaled(alpha, dy, ws, [&](const const_column_view<S>& scaled) {
        if (dx != nullptr) {
            base.add_transposed_product(S(1), scaled, *dx, ws);
        }
        detail::bat_back<detail::rows_of_operator<S>, S>({base}, adapter, S(1), scaled, &x, &g, dx, ws);
    });
}

#ifdef LOWRANK_COMPILED
template class miss_bat_operator<float>;
template class miss_bat_operator<double>;
template class miss_bat_operator<half>;
template class miss_bat_operator<bfloat16>;
#define LOWRANK_MISS_BAT_OF(S)                                                            \
    template miss_bat_adapter<S> make_miss_bat<S>(index, index, const miss_bat_options&); \
    template detail::bat_blocks detail::make_bat_blocks<S>(const miss_bat_adapter<S>&);
LOWRANK_MISS_BAT_OF(float)
LOWRANK_MISS_BAT_OF(double)
#undef LOWRANK_MISS_BAT_OF
template class applied_miss_bat<float>;
template class applied_miss_bat<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_MISS_BAT_IPP

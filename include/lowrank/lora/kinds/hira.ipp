// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_HIRA_IPP
#define LOWRANK_LORA_KINDS_HIRA_IPP

#include <lowrank/lora/kinds/hira.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
hira_adapter<S> make_hira(index out, index in, const hira_options& options) {
    detail::expects(out >= 0 && in >= 1 && options.r >= 1, "make_hira: in and r must be at least 1");
    hira_adapter<S> a{.hira_A = matrix<S>(options.r, in)};
    a.hira_B.setZero(out, options.r);
    const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(in)));
    fill_uniform(a.hira_A, -bound, bound, philox(options.seed, options.stream));
    return a;
}

namespace detail {

/// X := X o Y
template <class X, class Y>
void multiply_entries(const X& x, const Y& y) {
    const dense_view<stored_of<X>> to(const_cast<stored_of<X>*>(x.data()), x.rows(), x.cols(), 1, x.outerStride());
    for (index j = 0; j < to.cols(); ++j) {
        for (index i = 0; i < to.rows(); ++i) {
            to(i, j) *= y(i, j);
        }
    }
}

}  // namespace detail

/// `body(first, count, tile, old)` for a few rows of W at a time: `old` holds them as columns, `tile` their change.
template <storage T>
template <class F>
void hira_operator<T>::for_tiles(workspace& ws, F&& body) const {
    constexpr index at_once = 16;
    for (index first = 0; first < rows(); first += at_once) {
        const workspace::frame scope(ws);
        const index count = std::min(at_once, rows() - first);
        auto old = ws.take<S>(cols(), count);
        for (index i = 0; i < count; ++i) {
            const T* row = w_.data() + (first + i) * w_.outerStride();
            for (index j = 0; j < cols(); ++j) {
                old(j, i) = static_cast<S>(row[j]);
            }
        }
        auto tile = ws.take<S>(cols(), count);
        tile.setZero();
        const dense_view<const S> b = dense_view<const S>(adapter_.hira_B).middle_rows(first, count);
        detail::gemm_in<S>(S(1), transposed(adapter_.hira_A), transposed(b), tile, ws);
        detail::multiply_entries(tile, old);
        body(first, count, tile, old);
    }
}

template <storage T>
void hira_operator<T>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("hira_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
    detail::expects_shape("hira_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
    if (detail::all_zero(adapter_.hira_B)) {
        return;
    }
    for_tiles(ws, [&](index first, index count, column_view<S>& tile, column_view<S>&) {
        lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(tile), x, detail::some_rows(y, first, count),
                                              ws);
    });
}

template <storage T>
void hira_operator<T>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("hira_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
    detail::expects_shape("hira_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
    if (detail::all_zero(adapter_.hira_B)) {
        return;
    }
    for_tiles(ws, [&](index first, index count, column_view<S>& tile, column_view<S>&) {
        lowrank::add_product<S, 0>(alpha, const_column_view<S>(tile), detail::some_rows(x, first, count), y, ws);
    });
}

template <storage T>
void hira_operator<T>::backward(const_column_view<S> x, const_column_view<S> dy, hira_adapter<S>& gradient,
                                column_view<S>* dx, workspace& ws) const {
    detail::expects_shape("hira_operator::backward", "x", x.rows(), x.cols(), cols(), dy.cols());
    detail::expects_shape("hira_operator::backward", "dy", dy.rows(), dy.cols(), rows(), x.cols());
    detail::expects(gradient.hira_A.rows() == adapter_.hira_A.rows() && gradient.hira_A.cols() == cols() &&
                        gradient.hira_B.rows() == rows() && gradient.hira_B.cols() == adapter_.hira_B.cols(),
                    "hira_operator::backward: the gradient was made for another adapter");
    for_tiles(ws, [&](index first, index count, column_view<S>& tile, column_view<S>& old) {
        const const_column_view<S> dy_part = detail::some_rows(dy, first, count);
        if (dx != nullptr) {
            lowrank::add_product<S, 0>(S(1), const_column_view<S>(tile), dy_part, *dx, ws);
        }
        tile.setZero();
        add_outer_product(S(1), x, dy_part, tile, ws);
        detail::multiply_entries(tile, old);  // H^T, in x count
        detail::gemm_in<S>(S(1), transposed(tile), transposed(adapter_.hira_A),
                           dense_view<S>(gradient.hira_B).middle_rows(first, count), ws);
        add_outer_product(S(1), transposed(dense_view<const S>(adapter_.hira_B).middle_rows(first, count)), tile,
                          gradient.hira_A, ws);
    });
}

namespace detail {

template <real S>
void check_hira(const char* function, const operator_reference<S>& base, const hira_adapter<S>& a,
                const const_column_view<S>& x, const const_column_view<S>& y) {
    expects(a.hira_A.cols() == base.cols() && a.hira_B.rows() == base.rows() && a.hira_A.rows() == a.hira_B.cols(),
            "hira: the adapter and the base must have one shape, A and B one rank");
    expects_shape(function, "x", x.rows(), x.cols(), base.cols(), y.cols());
    expects_shape(function, "y", y.rows(), y.cols(), base.rows(), x.cols());
}

/// `body(k, u)` with u = W (A_k o X) for every k, or W^T (B_k o X): several k in one product where X has few columns.
template <real S, class F>
void for_hira_products(bool transpose, const operator_reference<S>& base, const hira_adapter<S>& a,
                       const const_column_view<S>& x, workspace& ws, F&& body) {
    const index r = a.hira_A.rows();
    const index n = x.cols();
    const index group = std::max<index>(1, std::min(r, 64 / std::max<index>(1, n)));
    const workspace::frame scope(ws);
    auto in = ws.take<S>(x.rows(), n * group);
    auto out = ws.take<S>(transpose ? base.cols() : base.rows(), n * group);
    for (index first = 0; first < r; first += group) {
        const index count = std::min(group, r - first);
        const column_view<S> from = some_columns(in, 0, n * count);
        column_view<S> to = some_columns(out, 0, n * count);
        for (index k = 0; k < count; ++k) {
            for (index j = 0; j < n; ++j) {
                for (index i = 0; i < x.rows(); ++i) {
                    in(i, k * n + j) = x(i, j) * (transpose ? a.hira_B(i, first + k) : a.hira_A(first + k, i));
                }
            }
        }
        to.setZero();
        if (transpose) {
            base.add_transposed_product(S(1), from, to, ws);
        } else {
            base.add_product(S(1), from, to, ws);
        }
        for (index k = 0; k < count; ++k) {
            body(first + k, some_columns(to, k * n, n));
        }
    }
}

LOWRANK_BODY void scale_by_products(const matrix<double>& a, const matrix<double>& b, index first,
                                    const column_view<double>& rows, bool divides, workspace& ws) {
    const workspace::frame scope(ws);
    auto factors = ws.take<double>(rows.rows(), rows.cols());
    factors.setOnes();
    gemm_in<double>(1.0, transposed(a), transposed(dense_view<const double>(b).middle_rows(first, rows.cols())),
                    factors, ws);
    double* entry = const_cast<double*>(rows.data());
    for (index i = 0; i < rows.cols(); ++i, entry += rows.outerStride()) {
        for (index j = 0; j < rows.rows(); ++j) {
            const double f = factors(j, i);
            entry[j] = !divides ? entry[j] * f : f == 0 ? 0.0 : entry[j] / f;
        }
    }
}

}  // namespace detail

template <real S>
void add_hira_product(std::type_identity_t<operator_reference<S>> base, const hira_adapter<S>& a,
                      std::type_identity_t<S> alpha, std::type_identity_t<const_column_view<S>> x,
                      std::type_identity_t<column_view<S>> y, workspace& ws) {
    detail::check_hira<S>("add_hira_product", base, a, x, const_column_view<S>(y));
    if (detail::all_zero(a.hira_B)) {
        return;
    }
    detail::for_hira_products<S>(false, base, a, x, ws, [&](index k, const column_view<S>& u) {
        add_scaled_rows(
            alpha, [&](index i) { return a.hira_B(i, k); }, u, y);
    });
}

template <real S>
void add_hira_transposed_product(std::type_identity_t<operator_reference<S>> base, const hira_adapter<S>& a,
                                 std::type_identity_t<S> alpha, std::type_identity_t<const_column_view<S>> x,
                                 std::type_identity_t<column_view<S>> y, workspace& ws) {
    detail::check_hira<S>("add_hira_transposed_product", base, a, const_column_view<S>(y), x);
    if (detail::all_zero(a.hira_B)) {
        return;
    }
    detail::for_hira_products<S>(true, base, a, x, ws, [&](index k, const column_view<S>& u) {
        add_scaled_rows(
            alpha, [&](index i) { return a.hira_A(k, i); }, u, y);
    });
}

template <real S>
void hira_backward(std::type_identity_t<operator_reference<S>> base, const hira_adapter<S>& a,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                   hira_adapter<S>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws) {
    detail::check_hira<S>("hira_backward", base, a, x, dy);
    detail::for_hira_products<S>(false, base, a, x, ws, [&](index k, const column_view<S>& u) {
        add_row_dots(dy, u, [&](index i) -> S& { return gradient.hira_B(i, k); });
    });
    detail::for_hira_products<S>(true, base, a, dy, ws, [&](index k, const column_view<S>& v) {
        add_row_dots(x, v, [&](index i) -> S& { return gradient.hira_A(k, i); });
        if (dx != nullptr) {
            add_scaled_rows(
                S(1), [&](index i) { return a.hira_A(k, i); }, v, *dx);
        }
    });
}

template <real S>
void applied_hira<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                               gradient& g, column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
    detail::with_scaled(alpha, dy, ws, [&](const const_column_view<S>& scaled) {
        hira_backward<S>(base, adapter, x, scaled, g, dx, ws);
        if (dx != nullptr) {
            base.add_transposed_product(S(1), scaled, *dx, ws);
        }
    });
}

#ifdef LOWRANK_COMPILED
template class hira_operator<float>;
template class hira_operator<double>;
template class hira_operator<half>;
template class hira_operator<bfloat16>;
#define LOWRANK_HIRA_OF(S)                                                                                    \
    template hira_adapter<S> make_hira<S>(index, index, const hira_options&);                                 \
    template void add_hira_product<S>(operator_reference<S>, const hira_adapter<S>&, S, const_column_view<S>, \
                                      column_view<S>, workspace&);                                            \
    template void add_hira_transposed_product<S>(operator_reference<S>, const hira_adapter<S>&, S,            \
                                                 const_column_view<S>, column_view<S>, workspace&);           \
    template void hira_backward<S>(operator_reference<S>, const hira_adapter<S>&, const_column_view<S>,       \
                                   const_column_view<S>, hira_adapter<S>&, column_view<S>*, workspace&);
LOWRANK_HIRA_OF(float)
LOWRANK_HIRA_OF(double)
#undef LOWRANK_HIRA_OF
template class applied_hira<float>;
template class applied_hira<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_HIRA_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_IPP
#define LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_IPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>
#include <lowrank/lora/kinds/structured/fourierft.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void fourierft_adapter<S>::check() const {
    const index n = fourierft_spectrum.size();
    detail::expects(out >= 1 && in >= 1 && positions.cols() == n && (n == 0 || positions.rows() == 2),
                    "fourierft_adapter: needs the shape of its weight, and a position for each coefficient");
    for (index k = 0; k < n; ++k) {
        detail::expects(positions(0, k) >= 0 && positions(0, k) < out && positions(1, k) >= 0 && positions(1, k) < in,
                        "fourierft_adapter: a position lies outside of the weight");
    }
}

namespace detail {

/// cos and sin of 2 pi t / length for t = 0, 1, ..., length - 1, in two columns.
template <real S>
[[nodiscard]] column_view<S> wave_table(index length, workspace& ws) {
    auto table = ws.take<S>(length, 2);
    for (index t = 0; t < length; ++t) {
        const double angle = 2 * std::numbers::pi * static_cast<double>(t) / static_cast<double>(length);
        table(t, 0) = static_cast<S>(std::cos(angle));
        table(t, 1) = static_cast<S>(std::sin(angle));
    }
    return table;
}

/// The waves of `count` frequencies from the k-th on, at points first_point, first_point + 1, ...: cosines in the first
/// `count` columns of `to`, sines in the next.
template <real S>
void fill_waves(const entry_positions& at, index side, index k, index count, const column_view<S>& table,
                index first_point, const dense_view<S>& to) {
    const index length = table.rows();
    for (index c = 0; c < count; ++c) {
        const index step = at(side, k + c);
        index t = static_cast<index>(static_cast<std::int64_t>(step) * first_point % length);
        for (index p = 0; p < to.rows(); ++p) {
            to(p, c) = table(t, 0);
            to(p, count + c) = table(t, 1);
            t += step;
            t = t < length ? t : t - length;
        }
    }
}

inline constexpr index waves_at_once = 32;

/// `body(k, count, to, from)` for a few frequencies at a time: their waves along `to_side` and along the other side.
template <real S, class F>
void for_waves(const fourierft_adapter<S>& a, index to_side, workspace& ws, F&& body) {
    const index to_length = to_side == 0 ? a.out : a.in;
    const index from_length = to_side == 0 ? a.in : a.out;
    const index n = a.fourierft_spectrum.size();
    const index most = std::min(waves_at_once, n);
    const workspace::frame scope(ws);
    const auto to_table = wave_table<S>(to_length, ws);
    const auto from_table = wave_table<S>(from_length, ws);
    auto to = ws.take<S>(to_length, 2 * most);
    auto from = ws.take<S>(from_length, 2 * most);
    for (index k = 0; k < n; k += most) {
        const index count = std::min(most, n - k);
        const column_view<S> some_to = some_columns(to, 0, 2 * count);
        const column_view<S> some_from = some_columns(from, 0, 2 * count);
        fill_waves<S>(a.positions, to_side, k, count, to_table, 0, some_to);
        fill_waves<S>(a.positions, 1 - to_side, k, count, from_table, 0, some_from);
        body(k, count, const_column_view<S>(some_to), const_column_view<S>(some_from));
    }
}

/// The rows of T, those of cosines and those of sines, times c and -c: cos(a + b) = cos a cos b - sin a sin b.
template <real S>
void scale_waves(const vector<S>& c, index k, index count, column_view<S>& t) {
    for (index j = 0; j < t.cols(); ++j) {
        for (index i = 0; i < count; ++i) {
            t(i, j) *= c(k + i);
            t(count + i, j) *= -c(k + i);
        }
    }
}

template <real S>
[[nodiscard]] double wave_factor(const fourierft_adapter<S>& a) {
    return a.scaling / (static_cast<double>(a.out) * static_cast<double>(a.in));
}

/// Y += alpha D X for to_side 0, Y += alpha D^T X for to_side 1.
template <real S>
void add_wave_product(const fourierft_adapter<S>& a, index to_side, S alpha, const const_column_view<S>& x,
                      const column_view<S>& y, workspace& ws) {
    const S factor = alpha * static_cast<S>(wave_factor(a));
    for_waves(a, to_side, ws,
              [&](index k, index count, const const_column_view<S>& to, const const_column_view<S>& from) {
                  const workspace::frame scope(ws);
                  auto t = ws.take<S>(2 * count, x.cols());
                  t.setZero();
                  gemm_in<S>(S(1), transposed(from), x, t, ws);
                  scale_waves(a.fourierft_spectrum, k, count, t);
                  gemm_in<S>(factor, to, t, y, ws);
              });
}

}  // namespace detail

template <real S>
void fourierft_adapter<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_shape("fourierft_adapter::add_product", "x", x.rows(), x.cols(), in, y.cols());
    detail::expects_shape("fourierft_adapter::add_product", "y", y.rows(), y.cols(), out, x.cols());
    detail::add_wave_product<S>(*this, 0, alpha, x, y, ws);
}

template <real S>
void fourierft_adapter<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y,
                                                  workspace& ws) const {
    detail::expects_shape("fourierft_adapter::add_transposed_product", "x", x.rows(), x.cols(), out, y.cols());
    detail::expects_shape("fourierft_adapter::add_transposed_product", "y", y.rows(), y.cols(), in, x.cols());
    detail::add_wave_product<S>(*this, 1, alpha, x, y, ws);
}

template <real S>
void fourierft_adapter<S>::backward(const_column_view<S> x, const_column_view<S> dy, fourierft_adapter& gradient,
                                    column_view<S>* dx, workspace& ws) const {
    detail::expects_shape("fourierft_adapter::backward", "x", x.rows(), x.cols(), in, dy.cols());
    detail::expects_shape("fourierft_adapter::backward", "dy", dy.rows(), dy.cols(), out, x.cols());
    detail::expects(gradient.fourierft_spectrum.size() == fourierft_spectrum.size(),
                    "fourierft_adapter::backward: the gradient was made for another adapter");
    const auto factor = static_cast<S>(detail::wave_factor(*this));
    detail::for_waves(
        *this, 1, ws,
        [&](index k, index count, const const_column_view<S>& along_in, const const_column_view<S>& along_out) {
            const workspace::frame scope(ws);
            auto t = ws.take<S>(2 * count, x.cols());
            auto u = ws.take<S>(2 * count, x.cols());
            t.setZero();
            u.setZero();
            detail::gemm_in<S>(S(1), transposed(along_in), x, t, ws);
            detail::gemm_in<S>(S(1), transposed(along_out), dy, u, ws);
            for (index j = 0; j < x.cols(); ++j) {
                for (index i = 0; i < count; ++i) {
                    gradient.fourierft_spectrum(k + i) +=
                        factor * (u(i, j) * t(i, j) - u(count + i, j) * t(count + i, j));
                }
            }
            if (dx != nullptr) {
                detail::scale_waves(fourierft_spectrum, k, count, u);
                detail::gemm_in<S>(factor, along_in, u, *dx, ws);
            }
        });
}

template <real S>
low_rank<S> fourierft_adapter<S>::delta() const {
    check();
    const index n = fourierft_spectrum.size();
    low_rank<S> d{.left = matrix<S>(out, 2 * n), .right = matrix<S>(2 * n, in)};
    workspace ws;
    const dense_view<S> right(d.right);
    const dense_view<S> waves(right.data(), in, 2 * n, right.col_stride(), right.row_stride());
    detail::fill_waves<S>(positions, 0, 0, n, detail::wave_table<S>(out, ws), 0, dense_view<S>(d.left));
    detail::fill_waves<S>(positions, 1, 0, n, detail::wave_table<S>(in, ws), 0, waves);
    const auto factor = static_cast<S>(detail::wave_factor(*this));
    scale_cols(d.left, [&](index k) { return factor * (k < n ? fourierft_spectrum(k) : -fourierft_spectrum(k - n)); });
    return d;
}

template <real S>
void fourierft_adapter<S>::add_rows(double factor, index first, column_view<double> to) const {
    const index n = fourierft_spectrum.size();
    const index most = std::min(detail::waves_at_once, n);
    workspace ws;
    const auto out_table = detail::wave_table<double>(out, ws);
    const auto in_table = detail::wave_table<double>(in, ws);
    auto along_out = ws.take<double>(to.cols(), 2 * most);
    auto along_in = ws.take<double>(in, 2 * most);
    for (index k = 0; k < n; k += most) {
        const index count = std::min(most, n - k);
        auto few = detail::some_columns(along_out, 0, 2 * count);
        auto all = detail::some_columns(along_in, 0, 2 * count);
        detail::fill_waves<double>(positions, 0, k, count, out_table, first, few);
        detail::fill_waves<double>(positions, 1, k, count, in_table, 0, all);
        scale_cols(few, [&](index c) {
            return c < count ? static_cast<double>(fourierft_spectrum(k + c))
                             : -static_cast<double>(fourierft_spectrum(k + c - count));
        });
        detail::gemm_in<double>(factor * detail::wave_factor(*this), all, transposed(few), to, ws);
    }
}

template <real S>
added_rows_change fourierft_adapter<S>::row_sums() const {
    check();
    return {added_rows(*this)};
}

template <real S>
weight_change<S> fourierft_adapter<S>::change() const {
    const index rank = 2 * fourierft_spectrum.size();
    return rank * (out + in) < out * in ? weight_change<S>(delta()) : weight_change<S>(row_sums());
}

template <real S>
fourierft_adapter<S> make_fourierft(index out, index in, const fourierft_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.n_frequency >= 1 && options.n_frequency <= out * in,
                    "make_fourierft: n_frequency must be at least 1 and at most out in");
    fourierft_adapter<S> a{
        .scaling = options.scaling, .random_loc_seed = options.random_loc_seed, .out = out, .in = in};
    a.positions = torch_random_positions(out, in, options.n_frequency, options.random_loc_seed);
    a.fourierft_spectrum.setZero(options.n_frequency);
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_FOURIERFT_OF(S)           \
    template struct fourierft_adapter<S>; \
    template fourierft_adapter<S> make_fourierft<S>(index, index, const fourierft_options&);
LOWRANK_FOURIERFT_OF(float)
LOWRANK_FOURIERFT_OF(double)
#undef LOWRANK_FOURIERFT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_IPP

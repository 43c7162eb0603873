// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_IPP
#define LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_IPP

#include <lowrank/lora/kinds/structured/fourierft.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The distinct waves along one side, and which of them each frequency is made of.
LOWRANK_INLINE void find_waves(index length, index side, const entry_positions& at, matrix<std::int32_t>& waves,
                               entry_positions& places, matrix<std::int32_t>& signs) {
    std::vector<std::int32_t> place(static_cast<std::size_t>(length / 2 + 1), -1);
    const auto mirrored = [&](index k) { return 2 * index{at(side, k)} > length; };
    const auto wave_of = [&](index k) {
        return static_cast<std::size_t>(mirrored(k) ? length - at(side, k) : index{at(side, k)});
    };
    for (index k = 0; k < at.cols(); ++k) {
        place[wave_of(k)] = 0;
    }
    std::int32_t count = 0;
    for (std::int32_t& x : place) {
        x = x == 0 ? count++ : -1;
    }
    waves.resize(1, count);
    for (std::size_t f = 0; f < place.size(); ++f) {
        if (place[f] >= 0) {
            waves(0, place[f]) = static_cast<std::int32_t>(f);
        }
    }
    for (index k = 0; k < at.cols(); ++k) {
        places(side, k) = place[wave_of(k)];
        signs(0, k) *= mirrored(k) ? -1 : 1;
    }
}

}  // namespace detail

LOWRANK_BODY fourierft_waves make_fourierft_waves(index out, index in, entry_positions positions) {
    for (index k = 0; k < positions.cols(); ++k) {
        detail::expects(positions.rows() == 2 && positions(0, k) >= 0 && positions(0, k) < out &&
                            positions(1, k) >= 0 && positions(1, k) < in,
                        "make_fourierft_waves: a position lies outside of the weight");
    }
    fourierft_waves w{.positions = std::move(positions)};
    const index n = w.positions.cols();
    w.places.resize(2, n);
    w.signs.setOnes(1, n);
    detail::find_waves(out, 0, w.positions, w.along_outputs, w.places, w.signs);
    detail::find_waves(in, 1, w.positions, w.along_inputs, w.places, w.signs);
    return w;
}

template <real S>
void fourierft_adapter<S>::check() const {
    const index n = fourierft_spectrum.size();
    detail::expects(out >= 1 && in >= 1 && waves.positions.cols() == n && waves.places.cols() == n &&
                        waves.signs.cols() == n && (n == 0 || waves.places.rows() == 2),
                    "fourierft_adapter: needs the shape of its weight, and the waves of each coefficient");
    const auto are_inside = [](const matrix<std::int32_t>& all, index limit) {
        for (index k = 0; k < all.cols(); ++k) {
            if (all.rows() != 1 || all(0, k) < 0 || all(0, k) >= limit) {
                return false;
            }
        }
        return true;
    };
    detail::expects(are_inside(waves.along_outputs, out) && are_inside(waves.along_inputs, in),
                    "fourierft_adapter: a wave lies outside of the weight");
    for (index k = 0; k < n; ++k) {
        detail::expects(waves.places(0, k) >= 0 && waves.places(0, k) < waves.along_outputs.cols() &&
                            waves.places(1, k) >= 0 && waves.places(1, k) < waves.along_inputs.cols(),
                        "fourierft_adapter: a coefficient has no waves");
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

/// Some waves at points first_point, first_point + 1, ...: cosine and sine of each in two columns beside each other.
template <real S>
void fill_waves(const matrix<std::int32_t>& waves, index first, const column_view<S>& table, index first_point,
                const dense_view<S>& to) {
    const index length = table.rows();
    for (index c = 0; c < to.cols() / 2; ++c) {
        const index step = waves(0, first + c);
        index t = step * first_point % length;
        for (index p = 0; p < to.rows(); ++p) {
            to(p, 2 * c) = table(t, 0);
            to(p, 2 * c + 1) = table(t, 1);
            t += step;
            t = t < length ? t : t - length;
        }
    }
}

/// `body(first, some)` for a few waves at a time: `some` holds points first_point, ... of waves first, first + 1, ...
template <real S, class F>
void for_waves(const matrix<std::int32_t>& waves, index length, index first_point, index points, workspace& ws,
               F&& body) {
    constexpr index at_once = 32;
    const workspace::frame scope(ws);
    const auto table = wave_table<S>(length, ws);
    auto panel = ws.take<S>(points, 2 * std::min(at_once, waves.cols()));
    for (index first = 0; first < waves.cols(); first += at_once) {
        const auto some = some_columns(panel, 0, 2 * std::min(at_once, waves.cols() - first));
        fill_waves<S>(waves, first, table, first_point, some);
        body(first, const_column_view<S>(some));
    }
}

/// T = waves^T X
template <real S>
void transform(const matrix<std::int32_t>& waves, const const_column_view<S>& x, column_view<S>& t, workspace& ws) {
    t.setZero();
    for_waves<S>(waves, x.rows(), 0, x.rows(), ws, [&](index first, const const_column_view<S>& some) {
        gemm_in<S>(S(1), transposed(some), x, some_rows(t, 2 * first, some.cols()), ws);
    });
}

/// Y += factor waves U
template <real S>
void add_transformed_back(const matrix<std::int32_t>& waves, S factor, const const_column_view<S>& u,
                          const column_view<S>& y, workspace& ws) {
    for_waves<S>(waves, y.rows(), 0, y.rows(), ws, [&](index first, const const_column_view<S>& some) {
        gemm_in<S>(factor, some, some_rows(u, 2 * first, some.cols()), y, ws);
    });
}

/// U = the coefficients times T, from the waves of one side to those of the other: cos(a + b) = cos a cos b - sin a sin b.
template <real S>
void mix_waves(const fourierft_adapter<S>& a, index to_side, const const_column_view<S>& t, column_view<S>& u) {
    u.setZero();
    for (index j = 0; j < t.cols(); ++j) {
        for (index k = 0; k < a.fourierft_spectrum.size(); ++k) {
            const index to = 2 * a.waves.places(to_side, k);
            const index from = 2 * a.waves.places(1 - to_side, k);
            u(to, j) += a.fourierft_spectrum(k) * t(from, j);
            u(to + 1, j) -= static_cast<S>(a.waves.signs(0, k)) * a.fourierft_spectrum(k) * t(from + 1, j);
        }
    }
}

template <real S>
[[nodiscard]] double wave_factor(const fourierft_adapter<S>& a) {
    return a.scaling / (static_cast<double>(a.out) * static_cast<double>(a.in));
}

template <real S>
void add_wave_product(const fourierft_adapter<S>& a, index to_side, S alpha, const const_column_view<S>& x,
                      const column_view<S>& y, workspace& ws) {
    const auto& to = to_side == 0 ? a.waves.along_outputs : a.waves.along_inputs;
    const auto& from = to_side == 0 ? a.waves.along_inputs : a.waves.along_outputs;
    const workspace::frame scope(ws);
    auto t = ws.take<S>(2 * from.cols(), x.cols());
    auto u = ws.take<S>(2 * to.cols(), x.cols());
    transform<S>(from, x, t, ws);
    mix_waves<S>(a, to_side, t, u);
    add_transformed_back<S>(to, alpha * static_cast<S>(wave_factor(a)), u, y, ws);
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
    const workspace::frame scope(ws);
    auto t = ws.take<S>(2 * waves.along_inputs.cols(), x.cols());
    auto v = ws.take<S>(2 * waves.along_outputs.cols(), x.cols());
    detail::transform<S>(waves.along_inputs, x, t, ws);
    detail::transform<S>(waves.along_outputs, dy, v, ws);
    for (index j = 0; j < x.cols(); ++j) {
        for (index k = 0; k < fourierft_spectrum.size(); ++k) {
            const index o = 2 * waves.places(0, k);
            const index i = 2 * waves.places(1, k);
            gradient.fourierft_spectrum(k) +=
                factor * (v(o, j) * t(i, j) - static_cast<S>(waves.signs(0, k)) * v(o + 1, j) * t(i + 1, j));
        }
    }
    if (dx != nullptr) {
        detail::mix_waves<S>(*this, 1, v, t);
        detail::add_transformed_back<S>(waves.along_inputs, factor, t, *dx, ws);
    }
}

template <real S>
low_rank<S> fourierft_adapter<S>::delta() const {
    check();
    low_rank<S> d{.left = matrix<S>(out, rank())};
    d.right.setZero(rank(), in);
    workspace ws;
    detail::fill_waves<S>(waves.along_outputs, 0, detail::wave_table<S>(out, ws), 0, dense_view<S>(d.left));
    const auto table = detail::wave_table<S>(in, ws);
    const auto factor = static_cast<S>(detail::wave_factor(*this));
    for (index k = 0; k < fourierft_spectrum.size(); ++k) {
        const index row = 2 * waves.places(0, k);
        const index step = waves.along_inputs(0, waves.places(1, k));
        const S c = factor * fourierft_spectrum(k);
        for (index q = 0, t = 0; q < in; ++q, t = (t + step) % in) {
            d.right(row, q) += c * table(t, 0);
            d.right(row + 1, q) -= static_cast<S>(waves.signs(0, k)) * c * table(t, 1);
        }
    }
    return d;
}

template <real S>
void fourierft_adapter<S>::add_rows(double factor, index first, column_view<double> to) const {
    workspace ws;
    const workspace::frame scope(ws);
    const auto table = detail::wave_table<double>(out, ws);
    auto u = ws.take<double>(2 * waves.along_inputs.cols(), to.cols());
    u.setZero();
    for (index r = 0; r < to.cols(); ++r) {
        for (index k = 0; k < fourierft_spectrum.size(); ++k) {
            const index t = index{waves.along_outputs(0, waves.places(0, k))} * (first + r) % out;
            const index i = 2 * waves.places(1, k);
            const auto c = static_cast<double>(fourierft_spectrum(k));
            u(i, r) += c * table(t, 0);
            u(i + 1, r) -= waves.signs(0, k) * c * table(t, 1);
        }
    }
    detail::add_transformed_back<double>(waves.along_inputs, factor * detail::wave_factor(*this), u, to, ws);
}

template <real S>
added_rows_change fourierft_adapter<S>::row_sums() const {
    check();
    return {added_rows(*this)};
}

template <real S>
weight_change<S> fourierft_adapter<S>::change() const {
    return rank() * (out + in) < out * in ? weight_change<S>(delta()) : weight_change<S>(row_sums());
}

template <real S>
fourierft_adapter<S> make_fourierft(index out, index in, const fourierft_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.n_frequency >= 1 && options.n_frequency <= out * in,
                    "make_fourierft: n_frequency must be at least 1 and at most out in");
    fourierft_adapter<S> a{
        .scaling = options.scaling, .random_loc_seed = options.random_loc_seed, .out = out, .in = in};
    a.waves =
        make_fourierft_waves(out, in, torch_random_positions(out, in, options.n_frequency, options.random_loc_seed));
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

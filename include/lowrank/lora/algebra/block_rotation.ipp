// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_IPP
#define LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_IPP

#include <lowrank/lora/algebra/block_rotation.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The rows of A that block `first` of a factor acts on: as they lie, or gathered in `buffer`.
template <real S>
dense_view<const S> block_rows(const rotation_factor<S>& f, index first, const dense_view<const S>& a,
                               const column_view<S>& buffer) {
    const index h = f.block_size();
    if (f.places.empty()) {
        return a.middle_rows(first, h);
    }
    const dense_view<S> rows(const_cast<S*>(buffer.data()), h, a.cols(), 1, h);
    for (index j = 0; j < a.cols(); ++j) {
        for (index i = 0; i < h; ++i) {
            rows(i, j) = a(f.places[static_cast<std::size_t>(first + i)], j);
        }
    }
    return rows;
}

/// Y += alpha F X, or alpha F^T X.
template <real S>
void add_factor_product(const rotation_factor<S>& f, bool transpose, S alpha, const dense_view<const S>& x,
                        const dense_view<S>& y, workspace& ws) {
    const index h = f.block_size();
    const bool gathers = !f.places.empty();
    const workspace::frame scope(ws);
    const auto from = ws.take<S>(gathers ? h : 0, x.cols());
    auto to = ws.take<S>(gathers ? h : 0, x.cols());
    for (index first = 0; first < x.rows(); first += h) {
        const dense_view<const S> side = dense_view<const S>(f.blocks).middle_cols(f.shared(x.rows()) ? 0 : first, h);
        const dense_view<const S> block = transpose ? transposed(side) : side;
        const dense_view<const S> rows = block_rows(f, first, x, from);
        if (!gathers) {
            gemm_in<S>(alpha, block, rows, y.middle_rows(first, h), ws);
            continue;
        }
        to.setZero();
        gemm_in<S>(alpha, block, rows, to, ws);
        for (index j = 0; j < x.cols(); ++j) {
            for (index i = 0; i < h; ++i) {
                y(f.places[static_cast<std::size_t>(first + i)], j) += to(i, j);
            }
        }
    }
}

/// The gradient of the blocks, given what F got and the gradient of what it gave.
template <real S>
void add_factor_gradient(const rotation_factor<S>& f, const dense_view<const S>& x, const dense_view<const S>& dz,
                         matrix<S>& blocks, workspace& ws) {
    const index h = f.block_size();
    const bool gathers = !f.places.empty();
    const workspace::frame scope(ws);
    const auto x_rows = ws.take<S>(gathers ? h : 0, x.cols());
    const auto dz_rows = ws.take<S>(gathers ? h : 0, x.cols());
    for (index first = 0; first < x.rows(); first += h) {
        add_outer_product(S(1), block_rows(f, first, dz, dz_rows), block_rows(f, first, x, x_rows),
                          dense_view<S>(blocks).middle_cols(f.shared(x.rows()) ? 0 : first, h), ws);
    }
}

}  // namespace detail

template <real S>
void block_rotation<S>::check(const char* function, const const_column_view<S>& x,
                              const const_column_view<S>& y) const {
    detail::expects_shape(function, "x", x.rows(), x.cols(), size, y.cols());
    detail::expects_shape(function, "y", y.rows(), y.cols(), size, x.cols());
    for (const auto& f : factors) {
        const index b = f.block_size();
        detail::expects(b > 0 && size % b == 0 && (f.blocks.cols() == size || f.blocks.cols() == b) &&
                            (f.places.empty() || static_cast<index>(f.places.size()) == size),
                        "block_rotation: blocks must be b x b, one or size / b of them, with b dividing size");
    }
}

template <real S>
void block_rotation<S>::run(bool transposed, S alpha, const const_column_view<S>& x, column_view<S>& y,
                            workspace& ws) const {
    check("block_rotation", x, const_column_view<S>(y));
    const workspace::frame scope(ws);
    const auto m = static_cast<index>(factors.size());
    if (m == 0) {
        add_scaled(alpha, x, y);
        return;
    }
    auto buffers = ws.take<S>(size, 2 * x.cols());
    dense_view<const S> from(x);
    for (index step = 0; step < m; ++step) {
        const auto& f = factors[static_cast<std::size_t>(transposed ? m - 1 - step : step)];
        if (step + 1 == m) {
            detail::add_factor_product<S>(f, transposed, alpha, from, y, ws);
        } else {
            column_view<S> to(buffers.data() + size * x.cols() * (step % 2), size, x.cols());
            to.setZero();
            detail::add_factor_product<S>(f, transposed, S(1), from, to, ws);
            from = dense_view<const S>(to);
        }
    }
}

template <real S>
void block_rotation<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    run(false, alpha, x, y, ws);
}

template <real S>
void block_rotation<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    run(true, alpha, x, y, ws);
}

template <real S>
void block_rotation<S>::backward(const_column_view<S> x, const_column_view<S> dz, block_rotation& gradient,
                                 column_view<S>* dx, workspace& ws) const {
    check("block_rotation::backward", x, dz);
    detail::expects(gradient.size == size && gradient.factors.size() == factors.size(),
                    "block_rotation::backward: the gradient was made for another rotation");
    const workspace::frame scope(ws);
    const index n = x.cols();
    const auto m = static_cast<index>(factors.size());
    // What each factor got: x, F_1 x, F_2 F_1 x, ...
    auto inputs = ws.take<S>(size, n * std::max<index>(m - 1, 0));
    inputs.setZero();
    const auto input = [&](index k) -> dense_view<const S> {
        return k == 0 ? dense_view<const S>(x)
                      : dense_view<const S>(inputs.data() + size * n * (k - 1), size, n, 1, size);
    };
    for (index k = 0; k + 1 < m; ++k) {
        const dense_view<S> out(inputs.data() + size * n * k, size, n, 1, size);
        detail::add_factor_product<S>(factors[static_cast<std::size_t>(k)], false, S(1), input(k), out, ws);
    }
    auto buffers = ws.take<S>(size, 2 * n);
    dense_view<const S> d(dz);
    for (index k = m; k-- > 0;) {
        const auto& f = factors[static_cast<std::size_t>(k)];
        auto& g = gradient.factors[static_cast<std::size_t>(k)];
        detail::expects_shape("block_rotation::backward", "gradient block", g.blocks.rows(), g.blocks.cols(),
                              f.blocks.rows(), f.blocks.cols());
        detail::add_factor_gradient<S>(f, input(k), d, g.blocks, ws);
        if (k > 0) {
            column_view<S> next(buffers.data() + size * n * (k % 2), size, n);
            next.setZero();
            detail::add_factor_product<S>(f, true, S(1), d, next, ws);
            d = dense_view<const S>(next);
        } else if (dx != nullptr) {
            detail::add_factor_product<S>(f, true, S(1), d, *dx, ws);
        }
    }
    if (m == 0 && dx != nullptr) {
        add_scaled(S(1), dz, *dx);
    }
}

template <real S>
double orthogonality_error(const block_rotation<S>& r) {
    double worst = 0;
    for (const auto& f : r.factors) {
        const index h = f.block_size();
        for (index first = 0; first < f.blocks.cols(); first += h) {
            matrix<double> gap = gram(dense_view<const S>(f.blocks).middle_cols(first, h));
            for (index i = 0; i < h; ++i) {
                gap(i, i) -= 1;
                for (index j = 0; j < h; ++j) {
                    const double error = std::abs(gap(i, j));
                    worst = error <= worst ? worst : error;
                }
            }
        }
    }
    return worst;
}

LOWRANK_BODY index rotation_block_size(index in, index wanted) {
    detail::expects(in >= 1 && wanted >= 1, "rotation_block_size: in and wanted must be positive");
    if (wanted >= in) {
        return in;
    }
    index up = wanted;
    while (in % up != 0) {
        ++up;
    }
    index down = wanted;
    while (in % down != 0) {
        --down;
    }
    return wanted - down <= up - wanted ? down : up;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_BLOCK_ROTATION_OF(S)   \
    template struct block_rotation<S>; \
    template double orthogonality_error<S>(const block_rotation<S>&);
LOWRANK_BLOCK_ROTATION_OF(float)
LOWRANK_BLOCK_ROTATION_OF(double)
#undef LOWRANK_BLOCK_ROTATION_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_IPP

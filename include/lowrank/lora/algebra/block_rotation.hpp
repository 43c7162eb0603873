// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_HPP
#define LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_HPP

/// \file
/// A rotation of the inputs as a sequence of block-diagonal factors, each on its own order of the coordinates.
///
///     const auto r = oft.rotation();                   // of OFT (one factor) or BOFT (butterfly factors)
///     auto z = lowrank::apply(r, x);                   // 2 in b n flops a factor, b the block size
///     double error = lowrank::orthogonality_error(r);  // max |B^T B - I| over the blocks

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One block-diagonal factor. Block k acts on the coordinates `places[k b .. k b + b)`.
template <real S>
struct rotation_factor {
    matrix<S> blocks = {};           ///< b x (b count), the blocks side by side; one block alone is used everywhere
    std::vector<index> places = {};  ///< a permutation of the coordinates; empty: in order

    [[nodiscard]] index block_size() const { return blocks.rows(); }
    [[nodiscard]] bool shared(index size) const { return blocks.cols() != size; }
};

/// The square linear operator F_m ... F_2 F_1 of block-diagonal factors, F_1 = `factors[0]` applied first.
template <real S>
struct block_rotation {
    using scalar = S;

    index size = 0;
    std::vector<rotation_factor<S>> factors = {};

    [[nodiscard]] index rows() const noexcept { return size; }
    [[nodiscard]] index cols() const noexcept { return size; }

    /// Y += alpha F_m ... F_1 X.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        run<false>("block_rotation::add_product", alpha, x, y, ws);
    }
    /// Y += alpha F_1^T ... F_m^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        run<true>("block_rotation::add_transposed_product", alpha, x, y, ws);
    }

    /// The same shapes, blocks zero.
    [[nodiscard]] block_rotation zero_gradient() const {
        block_rotation g = *this;
        for (auto& f : g.factors) {
            f.blocks.setZero();
        }
        return g;
    }

    /// Adds to the blocks of `gradient`, and R^T dZ to `*dx` unless it is null.
    void backward(const_column_view<S> x, const_column_view<S> dz, block_rotation& gradient, column_view<S>* dx,
                  workspace& ws) const {
        check("block_rotation::backward", x, dz);
        detail::expects(gradient.size == size && gradient.factors.size() == factors.size(),
                        "block_rotation::backward: the gradient was made for another rotation");
        const workspace::frame scope(ws);
        const index n = x.cols();
        const auto m = static_cast<index>(factors.size());
        // What each factor got: x, F_1 x, F_2 F_1 x, ...
        auto inputs = ws.take<S>(size, n * std::max<index>(m - 1, 0));
        inputs.setZero();
        const auto input = [&](index k) -> const_column_view<S> {
            return k == 0 ? x : const_column_view<S>(inputs.data() + size * n * (k - 1), size, n);
        };
        for (index k = 0; k + 1 < m; ++k) {
            column_view<S> out(inputs.data() + size * n * k, size, n);
            multiply<false>(factors[static_cast<std::size_t>(k)], S(1), input(k), out, ws);
        }
        auto buffers = ws.take<S>(size, 2 * n);
        borrowed at{dz.data(), dz.outerStride()};
        for (index k = m; k-- > 0;) {
            const auto d = at.view(size, n);
            const auto& f = factors[static_cast<std::size_t>(k)];
            auto& g = gradient.factors[static_cast<std::size_t>(k)];
            detail::expects_shape("block_rotation::backward", "gradient block", g.blocks.rows(), g.blocks.cols(),
                                  f.blocks.rows(), f.blocks.cols());
            add_block_gradients(f, input(k), d, g.blocks, ws);
            if (k > 0) {
                column_view<S> next(buffers.data() + size * n * (k % 2), size, n);
                next.setZero();
                multiply<true>(f, S(1), d, next, ws);
                at = {next.data(), size};
            } else if (dx != nullptr) {
                multiply<true>(f, S(1), d, *dx, ws);
            }
        }
        if (m == 0 && dx != nullptr) {
            *dx += dz;
        }
    }

    template <real D>
    [[nodiscard]] block_rotation<D> cast() const {
        block_rotation<D> out{.size = size};
        for (const auto& f : factors) {
            out.factors.push_back({.blocks = f.blocks.template cast<D>(), .places = f.places});
        }
        return out;
    }

private:
    static constexpr index panel = 128;

    /// Where the columns of the current step lie (a view itself is assigned element by element).
    struct borrowed {
        const S* data = nullptr;
        index stride = 0;
        [[nodiscard]] const_column_view<S> view(index rows, index cols) const { return {data, rows, cols, stride}; }
    };

    void check(const char* function, const const_column_view<S>& x, const const_column_view<S>& y) const {
        detail::expects_shape(function, "x", x.rows(), x.cols(), size, y.cols());
        detail::expects_shape(function, "y", y.rows(), y.cols(), size, x.cols());
        for (const auto& f : factors) {
            const index b = f.block_size();
            detail::expects(b > 0 && size % b == 0 && (f.blocks.cols() == size || f.blocks.cols() == b) &&
                                (f.places.empty() || static_cast<index>(f.places.size()) == size),
                            "block_rotation: blocks must be b x b, one or size / b of them, with b dividing size");
        }
    }

    /// `body(block, rows of a, rows of b)` for every block; permuted rows are copied and `b`'s are written back.
    template <bool Write, class A, class B, class F>
    void for_blocks(const rotation_factor<S>& f, const A& a, B& b, workspace& ws, F&& body) const {
        const index h = f.block_size();
        const bool shared = f.shared(size);
        const workspace::frame scope(ws);
        auto a_rows = ws.take<S>(f.places.empty() ? 0 : h, a.cols());
        auto b_rows = ws.take<S>(f.places.empty() ? 0 : h, a.cols());
        for (index first = 0; first < size; first += h) {
            const index column = shared ? 0 : first;
            if (f.places.empty()) {
                auto b_part = b.middleRows(first, h);
                body(column, a.middleRows(first, h), b_part);
                continue;
            }
            const auto place = [&](index i) { return f.places[static_cast<std::size_t>(first + i)]; };
            for (index i = 0; i < h; ++i) {
                a_rows.row(i) = a.row(place(i));
                b_rows.row(i) = b.row(place(i));
            }
            body(column, a_rows, b_rows);
            if constexpr (Write) {
                for (index i = 0; i < h; ++i) {
                    b.row(place(i)) = b_rows.row(i);
                }
            }
        }
    }

    /// out += alpha F in, or alpha F^T in.
    template <bool Transposed>
    void multiply(const rotation_factor<S>& f, S alpha, const const_column_view<S>& in, column_view<S>& out,
                  workspace& ws) const {
        const index h = f.block_size();
        for_blocks<true>(f, in, out, ws, [&](index column, const auto& from, auto& to) {
            for (index c = 0; c < to.cols(); c += panel) {  // what a panel's product packs fits the stack
                const index count = std::min(panel, to.cols() - c);
                if constexpr (Transposed) {
                    to.middleCols(c, count).noalias() +=
                        alpha * f.blocks.middleCols(column, h).transpose() * from.middleCols(c, count);
                } else {
                    to.middleCols(c, count).noalias() +=
                        alpha * f.blocks.middleCols(column, h) * from.middleCols(c, count);
                }
            }
        });
    }

    void add_block_gradients(const rotation_factor<S>& f, const const_column_view<S>& in, const const_column_view<S>& d,
                             matrix<S>& g, workspace& ws) const {
        const index h = f.block_size();
        for_blocks<false>(f, d, in, ws, [&](index column, const auto& d_rows, const auto& in_rows) {
            g.middleCols(column, h).noalias() += d_rows * in_rows.transpose();
        });
    }

    template <bool Transposed>
    void run(const char* function, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        check(function, x, const_column_view<S>(y));
        const workspace::frame scope(ws);
        const auto m = static_cast<index>(factors.size());
        if (m == 0) {
            y += alpha * x;
            return;
        }
        auto buffers = ws.take<S>(size, 2 * x.cols());
        borrowed at{x.data(), x.outerStride()};
        for (index step = 0; step < m; ++step) {
            const auto from = at.view(size, x.cols());
            const auto& f = factors[static_cast<std::size_t>(Transposed ? m - 1 - step : step)];
            if (step + 1 == m) {
                multiply<Transposed>(f, alpha, from, y, ws);
            } else {
                column_view<S> to(buffers.data() + size * x.cols() * (step % 2), size, x.cols());
                to.setZero();
                multiply<Transposed>(f, S(1), from, to, ws);
                at = {to.data(), size};
            }
        }
    }
};

/// max |B^T B - I| over all blocks, computed in double: 0 for exact rotations, up to rounding.
template <real S>
[[nodiscard]] double orthogonality_error(const block_rotation<S>& r) {
    double worst = 0;
    for (const auto& f : r.factors) {
        const index h = f.block_size();
        for (index first = 0; first < f.blocks.cols(); first += h) {
            const matrix<double> b = f.blocks.middleCols(first, h).template cast<double>();
            const matrix<double> gap = b.transpose() * b - matrix<double>::Identity(h, h);
            const double error = gap.size() > 0 ? gap.cwiseAbs().maxCoeff() : 0.0;
            worst = error <= worst ? worst : error;
        }
    }
    return worst;
}

/// The entries of a rotation that a gradient of it has.
template <real S>
[[nodiscard]] std::vector<std::span<S>> rotation_spans(block_rotation<S>& r) {
    std::vector<std::span<S>> all;
    for (auto& f : r.factors) {
        all.emplace_back(f.blocks.data(), static_cast<std::size_t>(f.blocks.size()));
    }
    return all;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_HPP

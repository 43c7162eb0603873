// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_MISS_BAT_HPP
#define LOWRANK_LORA_KINDS_MISS_BAT_HPP

/// \file
/// MiSS "bat" (Block Affine): each r x r block of W goes through an affine map of its block row, W_b -> W_b + W_b M +
/// M.
///
///     auto a = lowrank::make_miss_bat<float>(out, in, {.r = 64});               // zero: changes nothing yet
///     const lowrank::miss_bat_operator<float> change(w, a);                     // borrows the weight
///     const lowrank::operator_sum<float> layer({{lowrank::as_operator(w)}, {change}});
///     auto y = lowrank::apply(layer, x);                                        // base + change
///     auto receipt = lowrank::merge_transformed(lowrank::weight_view<float>(w), lowrank::miss_bat_rows(a));
///
/// Kang, Yin, arXiv 2409.15371; parameters as in PEFT. r must divide both dimensions.

#include <algorithm>
#include <cmath>
#include <utility>

#include <Eigen/LU>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct miss_bat_options {
    index r = 64;
};

/// The matrices M_o of all block rows, below each other.
template <real S>
struct miss_bat_adapter {
    using scalar = S;

    matrix<S> miss_block = {};  ///< out x r: M_0 in the first r rows, M_1 in the next, ...
    index in = 0;

    [[nodiscard]] index out() const { return miss_block.rows(); }
    [[nodiscard]] index rank() const { return miss_block.cols(); }

    /// r divides both dimensions.
    void check() const {
        detail::expects(rank() >= 1 && out() % rank() == 0 && in % rank() == 0,
                        "miss_bat_adapter: r must divide the outputs and the inputs");
    }
};

/// A new adapter for an out x in weight: zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] miss_bat_adapter<S> make_miss_bat(index out, index in, const miss_bat_options& options = {}) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1, "make_miss_bat: out, in and r must be at least 1");
    miss_bat_adapter<S> a{.miss_block = matrix<S>::Zero(out, options.r), .in = in};
    a.check();
    return a;
}

/// The change as a linear operator on a weight it borrows: rows o of the change are W_o diag(M_o, ..., M_o) + (M_o ... M_o).
template <storage T>
class miss_bat_operator {
public:
    using scalar = compute_t<T>;
    using S = scalar;

    /// \pre The weight has the adapter's shape and outlives the map.
    miss_bat_operator(const_weight_view<T> w, miss_bat_adapter<S> adapter) : w_(w), adapter_(std::move(adapter)) {
        adapter_.check();
        detail::expects_shape("miss_bat_operator", "weight", w.rows(), w.cols(), adapter_.out(), adapter_.in);
    }

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols(); }
    [[nodiscard]] const miss_bat_adapter<S>& adapter() const noexcept { return adapter_; }

    /// Y_o += alpha (W_o (M_o x_1; M_o x_2; ...) + M_o (x_1 + x_2 + ...)). A zero M_o leaves Y_o untouched.
    /// \cost That of the base, and 2 in out n flops for the small products.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("miss_bat_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("miss_bat_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        const workspace::frame scope(ws);
        const index r = adapter_.rank();
        auto packed = ws.take<S>(cols(), x.cols());  // no gaps, so that it is r x (in / r * n) too
        packed = x;
        auto sums = ws.take<S>(r, x.cols());
        sum_blocks(x, sums);
        auto turned = ws.take<S>(cols(), x.cols());
        for (index first = 0; first < rows(); first += r) {
            const auto m = adapter_.miss_block.middleRows(first, r);
            if (detail::all_zero(m)) {
                continue;
            }
            turned.setZero();
            add_small<false>(m, packed, turned);
            const column_view<S> y_part(y.data() + first, r, y.cols(), y.outerStride());
            lowrank::add_product<T, 1>(alpha, block_row(first), turned, y_part, ws);
            lowrank::add_product<S, 0>(alpha, const_column_view<S>(m.data(), r, r, m.outerStride()), sums, y_part, ws);
        }
    }
    /// Y_i += alpha sum_o M_o^T ((W_o^T x_o)_i + x_o).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("miss_bat_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("miss_bat_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        back(alpha, x, nullptr, nullptr, &y, ws);
    }

    /// Adds the gradients of a loss through Y += change X, given dY:
    ///
    ///     dM_o += sum_i (W_o^T dY_o)_i X_i^T + dY_o (sum_i X_i)^T     dX_i += sum_o M_o^T ((W_o^T dY_o)_i + dY_o)
    ///
    /// `dx` may be null. The base's own W^T dY is not in it.
    void backward(const_column_view<S> x, const_column_view<S> dy, miss_bat_adapter<S>& gradient, column_view<S>* dx,
                  workspace& ws) const {
        detail::expects_shape("miss_bat_operator::backward", "x", x.rows(), x.cols(), cols(), dy.cols());
        detail::expects_shape("miss_bat_operator::backward", "dy", dy.rows(), dy.cols(), rows(), x.cols());
        detail::expects_shape("miss_bat_operator::backward", "gradient", gradient.miss_block.rows(),
                              gradient.miss_block.cols(), adapter_.out(), adapter_.rank());
        back(S(1), dy, &x, &gradient, dx, ws);
    }

private:
    [[nodiscard]] const_weight_view<T> block_row(index first) const {
        return {w_.data() + first * w_.outerStride(), adapter_.rank(), w_.cols(), w_.outerStride()};
    }
    void sum_blocks(const const_column_view<S>& x, column_view<S>& sums) const {
        sums.setZero();
        for (index first = 0; first < cols(); first += adapter_.rank()) {
            sums += x.middleRows(first, adapter_.rank());
        }
    }
    /// Every r rows of `to` += M or M^T times those of `from`; both lie without gaps.
    template <bool Transposed, class M>
    void add_small(const M& m, const column_view<S>& from, column_view<S>& to) const {
        constexpr index panel = 128;
        const index r = adapter_.rank();
        const index n = from.size() / r;
        for (index c = 0; c < n; c += panel) {
            const index count = std::min(panel, n - c);
            const const_column_view<S> in(from.data() + c * r, r, count);
            column_view<S> out(to.data() + c * r, r, count);
            if constexpr (Transposed) {
                out.noalias() += m.transpose() * in;
            } else {
                out.noalias() += m * in;
            }
        }
    }
    void back(S alpha, const const_column_view<S>& dy, const const_column_view<S>* x, miss_bat_adapter<S>* gradient,
              column_view<S>* dx, workspace& ws) const {
        const workspace::frame scope(ws);
        const index r = adapter_.rank();
        const index n = dy.cols();
        auto t = ws.take<S>(cols(), n);
        auto packed = ws.take<S>(x != nullptr ? cols() : 0, n);
        auto sums = ws.take<S>(x != nullptr ? r : 0, n);
        if (x != nullptr) {
            packed = *x;
            sum_blocks(*x, sums);
        }
        auto back_x = ws.take<S>(dx != nullptr ? cols() : 0, n);
        back_x.setZero();
        for (index first = 0; first < rows(); first += r) {
            const const_column_view<S> dy_part(dy.data() + first, r, n, dy.outerStride());
            const auto m = adapter_.miss_block.middleRows(first, r);
            const bool moves = dx != nullptr && !detail::all_zero(m);
            if (x == nullptr && !moves) {
                continue;
            }
            t.setZero();
            lowrank::add_transposed_product<T, 1>(S(1), block_row(first), dy_part, t, ws);
            if (x != nullptr) {
                const column_view<S> t_blocks(t.data(), r, t.size() / r);
                const column_view<S> x_blocks(packed.data(), r, packed.size() / r);
                auto g = gradient->miss_block.middleRows(first, r);
                g.noalias() += t_blocks * x_blocks.transpose();
                g.noalias() += dy_part * sums.transpose();
            }
            if (moves) {
                for (index i = 0; i < cols(); i += r) {
                    t.middleRows(i, r) += dy_part;
                }
                add_small<true>(m, t, back_x);
            }
        }
        if (dx != nullptr) {
            *dx += alpha * back_x;
        }
    }

    const_weight_view<T> w_;
    miss_bat_adapter<S> adapter_;
};

/// The row transform W_b -> W_b + W_b M + M of `merge_transformed`, with its inverse where I + M has one (elsewhere the
/// receipt holds the old weight instead).
class miss_bat_rows {
public:
    template <real S>
    explicit miss_bat_rows(const miss_bat_adapter<S>& a)
        : m_(a.miss_block.template cast<double>()), inverse_(m_.rows(), m_.cols()), in_(a.in) {
        a.check();
        const index r = m_.cols();
        for (index first = 0; first < m_.rows(); first += r) {
            const matrix<double> inverse =
                (matrix<double>::Identity(r, r) + m_.middleRows(first, r)).partialPivLu().inverse();
            const bool fine = std::isfinite(inverse.cwiseAbs().sum());
            inverse_.middleRows(first, r) = fine ? inverse : matrix<double>(matrix<double>::Zero(r, r));
        }
    }

    [[nodiscard]] bool fits(index out, index in) const { return out == m_.rows() && in == in_; }

    void forward(index first, column_view<double> rows, workspace&) const {
        const index r = m_.cols();
        for (index k = 0; k < rows.cols(); ++k) {
            const index block = (first + k) / r * r;
            for (index i = 0; i < in_; i += r) {
                const vector<double> w = rows.col(k).segment(i, r);
                rows.col(k).segment(i, r) = w + m_.middleRows(block, r).transpose() * w + m_.row(first + k).transpose();
            }
        }
    }
    void backward(index first, column_view<double> rows, workspace&) const {
        const index r = m_.cols();
        for (index k = 0; k < rows.cols(); ++k) {
            const index block = (first + k) / r * r;
            for (index i = 0; i < in_; i += r) {
                const vector<double> w = rows.col(k).segment(i, r) - m_.row(first + k).transpose();
                rows.col(k).segment(i, r) = inverse_.middleRows(block, r).transpose() * w;
            }
        }
    }

private:
    matrix<double> m_;
    matrix<double> inverse_;
    index in_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_MISS_BAT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_OUTPUT_ROTATION_IPP
#define LOWRANK_LORA_KINDS_ROTATIONS_OUTPUT_ROTATION_IPP

#include <lowrank/lora/kinds/rotations/output_rotation.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>
#include <lowrank/lora/algebra/cayley.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
matrix<double> output_rotation_adapter<S>::skew(index first) const {
    const index b = block_size();
    matrix<double> q(b, b);
    for (index j = 0; j < b; ++j) {
        for (index i = 0; i < b; ++i) {
            q(i, j) = static_cast<double>(blocks(first + i, j)) - static_cast<double>(blocks(first + j, i));
        }
    }
    return q;
}

/// "(c g k) -> (c k g)" with g = 2 and k = 2^i b / 2.
template <real S>
std::vector<index> output_rotation_adapter<S>::butterfly_index(index i) const {
    const index k = (index{1} << i) * (block_size() / 2);
    std::vector<index> order(static_cast<std::size_t>(out()));
    for (index at = 0; at < out(); ++at) {
        const index in_pair = at % (2 * k);
        order[static_cast<std::size_t>(at)] = at - in_pair + (in_pair % 2) * k + in_pair / 2;
    }
    return order;
}

/// Of all Q together.
template <real S>
double output_rotation_adapter<S>::norm() const {
    double squares = 0;
    for (index first = 0; first < blocks.rows(); first += block_size()) {
        const double one = norm_of(skew(first));
        squares += one * one;
    }
    return std::sqrt(squares) + 1e-8;
}

template <real S>
double output_rotation_adapter<S>::shrink(double norm) const {
    const double largest = constraint * static_cast<double>(out());
    return constraint > 0 && norm > largest ? largest / norm : 1.0;
}

namespace detail {

/// factor Q
LOWRANK_INLINE matrix<double> times(double factor, matrix<double> q) {
    scale_cols(q, [factor](index) { return factor; });
    return q;
}

}  // namespace detail

template <real S>
block_rotation<double> output_rotation_adapter<S>::rotation() const {
    detail::expects(is_valid(), "output_rotation_adapter: the blocks do not fit each other");
    const index b = block_size();
    const double factor = (is_butterfly ? 1 : -1) * shrink(norm());
    block_rotation<double> g{.size = out()};
    for (index i = 0; i < factor_count(); ++i) {
        rotation_factor<double> one{.blocks = matrix<double>(b, out())};
        for (index first = 0; first < out(); first += b) {
            const matrix<double> block = cayley(detail::times(factor, skew(i * out() + first)));
            std::copy_n(block.data(), b * b, one.blocks.data() + first * b);
        }
        if (is_butterfly) {
            one.places = butterfly_index(i);
        }
        g.factors.push_back(std::move(one));
    }
    return g;
}

template <real S>
output_rotation_adapter<S> output_rotation_adapter<S>::pull_back(const block_rotation<S>& g,
                                                                 const vector<S>& rescale_gradient) const {
    detail::expects(is_valid() && static_cast<index>(g.factors.size()) == factor_count(),
                    "output_rotation_adapter::pull_back: the gradient is not of this rotation");
    const index b = block_size();
    const double length = norm();
    const double factor = shrink(length);
    const double sign = is_butterfly ? 1 : -1;
    std::vector<matrix<double>> dq;
    double along = 0;  // <dQ', Q> of all blocks, for the shortening by Q's own length
    for (index i = 0; i < factor_count(); ++i) {
        const dense_view<const S> d_blocks(g.factors[static_cast<std::size_t>(i)].blocks);
        for (index first = 0; first < out(); first += b) {
            const matrix<double> q = skew(i * out() + first);
            const matrix<double> turned = detail::times(sign * factor, q);
            dq.push_back(detail::times(
                sign, cayley_backward(turned, cayley(turned), copy_in<double>(d_blocks.middle_cols(first, b)))));
            add_row_dots(dq.back(), q, [&](index) -> double& { return along; });
        }
    }
    output_rotation_adapter d = detail::with_zero_parameters(*this);
    if (rescale.size() != 0) {
        d.rescale = rescale_gradient;
    }
    for (std::size_t k = 0; k < dq.size(); ++k) {
        const index first = static_cast<index>(k) * b;
        matrix<double> own = detail::times(factor, std::move(dq[k]));
        if (factor < 1) {
            add_scaled(-factor * along / (length * length), skew(first), own);
        }
        for (index j = 0; j < b; ++j) {
            for (index i = 0; i < b; ++i) {
                d.blocks(first + i, j) = static_cast<S>(own(i, j) - own(j, i));
            }
        }
    }
    return d;
}

namespace detail {

/// The columns of W, which are the rows of its transpose, through diag(scale) G.
struct turned_outputs {
    block_rotation<double> rotation;
    vector<double> scale;

    [[nodiscard]] bool fits(index, index outputs) const { return outputs == rotation.cols(); }
    void forward(index, column_view<double> columns, workspace& ws) const {
        const workspace::frame scope(ws);
        const auto from = copy(columns, ws);
        rotation.add_product(1.0, from, columns, ws);
        for (index i = 0; i < scale.size(); ++i) {
            for (index j = 0; j < columns.cols(); ++j) {
                columns(i, j) *= scale(i);
            }
        }
    }
    void backward(index, column_view<double> columns, workspace& ws) const {
        for (index i = 0; i < scale.size(); ++i) {
            for (index j = 0; j < columns.cols(); ++j) {
                columns(i, j) *= scale(i) == 0 ? 0.0 : 1 / scale(i);
            }
        }
        const workspace::frame scope(ws);
        const auto from = copy(columns, ws);
        rotation.add_transposed_product(1.0, from, columns, ws);
    }

private:
    /// A copy; what was copied becomes zero.
    static column_view<double> copy(column_view<double>& columns, workspace& ws) {
        auto from = ws.take<double>(columns.rows(), columns.cols());
        from.setZero();
        add_scaled(1.0, columns, from);
        columns.setZero();
        return from;
    }
};

}  // namespace detail

template <real S>
row_change output_rotation_adapter<S>::change() const {
    return {detail::turned_outputs{rotation(), head_in<double>(rescale, rescale.size())}, true};
}

namespace detail {

/// T += diag(s) X; an empty scale is all ones.
template <real S>
void add_rescaled(const vector<S>& scale, S alpha, const const_column_view<S>& x, column_view<S>& t) {
    if (scale.size() == 0) {
        add_scaled(alpha, x, t);
    } else {
        add_scaled_rows(alpha, scale, x, t);
    }
}

}  // namespace detail

template <real S>
void applied_output_rotation<S>::add_product(operator_reference<S> base, S alpha, const_column_view<S> x,
                                             column_view<S> y, workspace& ws, const dropout_key& /*key*/) const {
    const workspace::frame scope(ws);
    auto v = ws.take<S>(y.rows(), y.cols());
    v.setZero();
    base.add_product(S(1), x, v, ws);
    auto turned = ws.take<S>(y.rows(), y.cols());
    turned.setZero();
    rotation_.add_product(S(1), v, turned, ws);
    detail::add_rescaled<S>(adapter.rescale, alpha, turned, y);
}

template <real S>
void applied_output_rotation<S>::add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x,
                                                        column_view<S> y, workspace& ws) const {
    const workspace::frame scope(ws);
    auto scaled = ws.take<S>(x.rows(), x.cols());
    scaled.setZero();
    detail::add_rescaled<S>(adapter.rescale, S(1), x, scaled);
    auto t = ws.take<S>(x.rows(), x.cols());
    t.setZero();
    rotation_.add_transposed_product(S(1), scaled, t, ws);
    base.add_transposed_product(alpha, t, y, ws);
}

template <real S>
void applied_output_rotation<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x,
                                          const_column_view<S> dy, gradient& g, column_view<S>* dx, workspace& ws,
                                          const dropout_key& /*key*/) const {
    const workspace::frame scope(ws);
    auto v = ws.take<S>(dy.rows(), x.cols());
    v.setZero();
    base.add_product(S(1), x, v, ws);
    if (adapter.rescale.size() != 0) {
        const workspace::frame inner(ws);
        auto turned = ws.take<S>(dy.rows(), x.cols());
        turned.setZero();
        rotation_.add_product(alpha, v, turned, ws);
        add_row_dots(turned, dy, g.rescale);
    }
    auto scaled = ws.take<S>(dy.rows(), x.cols());
    scaled.setZero();
    detail::add_rescaled<S>(adapter.rescale, alpha, dy, scaled);
    auto t = ws.take<S>(dy.rows(), x.cols());
    t.setZero();
    rotation_.backward(v, scaled, g.rotation, dx == nullptr ? nullptr : &t, ws);
    if (dx != nullptr) {
        base.add_transposed_product(S(1), t, *dx, ws);
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_OUTPUT_ROTATION_OF(S) template struct output_rotation_adapter<S>;
LOWRANK_OUTPUT_ROTATION_OF(float)
LOWRANK_OUTPUT_ROTATION_OF(double)
#undef LOWRANK_OUTPUT_ROTATION_OF
template class applied_output_rotation<float>;
template class applied_output_rotation<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_OUTPUT_ROTATION_IPP

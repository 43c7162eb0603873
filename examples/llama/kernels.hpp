// SPDX-License-Identifier: MIT
#ifndef LLAMA_KERNELS_HPP
#define LLAMA_KERNELS_HPP

/// \file
/// The pieces between the linear layers, forward and backward: RMSNorm, rotary positions, attention, SiLU.
///
///     llama::rms_norm<float>(x, weight, eps, y);
///     llama::attend<float>(c, q, k, v, out, lse, ws);
///
/// Columns are tokens. Backward kernels add to their results, so that branches sum up by themselves.

#include <algorithm>
#include <cmath>

#include "config.hpp"
#include "model.hpp"

namespace llama {

/// y = w * x / sqrt(mean(x^2) + eps), column by column.
template <real S>
void rms_norm(const_column_view<S> x, const vector<S>& w, double eps, column_view<S> y) {
    const S n = static_cast<S>(x.rows());
    for (index j = 0; j < x.cols(); ++j) {
        const S r = S(1) / std::sqrt(x.col(j).squaredNorm() / n + static_cast<S>(eps));
        y.col(j).array() = x.col(j).array() * w.array() * r;
    }
}

/// With r = 1 / sqrt(mean(x^2) + eps): dx += r w dy - x r^3 / n <x, w dy>, and dw += sum over columns of r x dy unless
/// `dw` is null.
template <real S>
void rms_norm_backward(const_column_view<S> x, const vector<S>& w, double eps, const_column_view<S> dy,
                       column_view<S> dx, vector<S>* dw) {
    const S n = static_cast<S>(x.rows());
    for (index j = 0; j < x.cols(); ++j) {
        const auto xj = x.col(j).array();
        const auto dyj = dy.col(j).array();
        const S r = S(1) / std::sqrt(x.col(j).squaredNorm() / n + static_cast<S>(eps));
        const S along = (xj * w.array() * dyj).sum() * r * r * r / n;
        dx.col(j).array() += r * w.array() * dyj - along * xj;
        if (dw != nullptr) {
            dw->array() += r * xj * dyj;
        }
    }
}

/// Cosines and sines of the rotation angles: column p holds position `first + p`, the first half of its rows cosines.
template <real S>
[[nodiscard]] column_view<S> rope_table(const config& c, index first, index count, workspace& ws) {
    const index half = c.head_dim / 2;
    column_view<S> table = ws.take<S>(c.head_dim, count);
    for (index i = 0; i < half; ++i) {
        const double frequency = rope_frequency(c, i);
        for (index p = 0; p < count; ++p) {
            const double angle = static_cast<double>(first + p) * frequency;
            table(i, p) = static_cast<S>(std::cos(angle));
            table(half + i, p) = static_cast<S>(std::sin(angle));
        }
    }
    return table;
}

/// Rotates the pair (i, i + head_dim / 2) of every head of each column by its position's angle; `direction` -1 rotates
/// back, which is the backward pass of a rotation. Column j of x takes column j of the table.
template <real S>
void rotate(const_column_view<S> table, column_view<S> x, S direction) {
    const index half = table.rows() / 2;
    for (index j = 0; j < x.cols(); ++j) {
        for (index head = 0; head < x.rows(); head += 2 * half) {
            for (index i = 0; i < half; ++i) {
                const S c = table(i, j);
                const S s = direction * table(half + i, j);
                const S a = x(head + i, j);
                const S b = x(head + half + i, j);
                x(head + i, j) = a * c - b * s;
                x(head + half + i, j) = b * c + a * s;
            }
        }
    }
}

namespace detail {

inline constexpr index query_block = 64;  // Queries at a time: their scores stay in cache.

/// Causal softmax of one block of scores in place: column i sees rows [0, visible + i); the rest becomes zero.
template <real S>
void causal_softmax(column_view<S> scores, index visible, S* lse) {
    for (index i = 0; i < scores.cols(); ++i) {
        auto seen = scores.col(i).head(visible + i).array();
        const S top = seen.maxCoeff();
        seen = (seen - top).exp();
        const S sum = seen.sum();
        seen *= S(1) / sum;
        scores.col(i).tail(scores.rows() - visible - i).setZero();
        if (lse != nullptr) {
            lse[i] = top + std::log(sum);
        }
    }
}

}  // namespace detail

/// Causal attention of one sequence: out = V softmax(K^T Q / sqrt(head_dim)), head by head; consecutive query heads
/// share a key head. The queries are the last q.cols() positions of the k.cols() keys. `lse` (queries x heads), unless
/// empty, keeps the logarithm of each softmax's denominator for the backward pass.
template <real S>
void attend(const config& c, const_column_view<S> q, const_column_view<S> k, const_column_view<S> v, column_view<S> out,
            column_view<S> lse, workspace& ws) {
    const index hd = c.head_dim;
    const index group = c.num_attention_heads / c.num_key_value_heads;
    const index before = k.cols() - q.cols();
    const S scale = static_cast<S>(1 / std::sqrt(static_cast<double>(hd)));
    for (index h = 0; h < c.num_attention_heads; ++h) {
        const index kv = h / group * hd;
        for (index first = 0; first < q.cols(); first += detail::query_block) {
            const index count = std::min(detail::query_block, q.cols() - first);
            const index keys = before + first + count;
            const workspace::frame scope(ws);
            column_view<S> p = ws.take<S>(keys, count);
            p.noalias() = scale * (k.block(kv, 0, hd, keys).transpose() * q.block(h * hd, first, hd, count));
            detail::causal_softmax<S>(p, before + first + 1, lse.size() > 0 ? &lse(first, h) : nullptr);
            out.block(h * hd, first, hd, count).noalias() = v.block(kv, 0, hd, keys) * p;
        }
    }
}

/// The backward pass of `attend` for a whole sequence (as many queries as keys): adds to dq, dk, dv. The probabilities
/// are computed again from q, k and `lse`.
template <real S>
void attend_backward(const config& c, const_column_view<S> q, const_column_view<S> k, const_column_view<S> v,
                     const_column_view<S> out, const_column_view<S> lse, const_column_view<S> dout, column_view<S> dq,
                     column_view<S> dk, column_view<S> dv, workspace& ws) {
    const index hd = c.head_dim;
    const index group = c.num_attention_heads / c.num_key_value_heads;
    const S scale = static_cast<S>(1 / std::sqrt(static_cast<double>(hd)));
    for (index h = 0; h < c.num_attention_heads; ++h) {
        const index kv = h / group * hd;
        for (index first = 0; first < q.cols(); first += detail::query_block) {
            const index count = std::min(detail::query_block, q.cols() - first);
            const index keys = first + count;
            const auto qh = q.block(h * hd, first, hd, count);
            const auto doh = dout.block(h * hd, first, hd, count);
            const auto kh = k.block(kv, 0, hd, keys);
            const auto vh = v.block(kv, 0, hd, keys);
            const workspace::frame scope(ws);
            column_view<S> p = ws.take<S>(keys, count);
            column_view<S> ds = ws.take<S>(keys, count);
            p.noalias() = scale * (kh.transpose() * qh);
            ds.noalias() = vh.transpose() * doh;
            for (index i = 0; i < count; ++i) {
                const index seen = first + i + 1;
                auto pi = p.col(i).head(seen).array();
                auto dsi = ds.col(i).head(seen).array();
                pi = (pi - lse(first + i, h)).exp();
                // The softmax's backward subtracts sum_j p_j dp_j, which is <out, dout> of this query.
                const S mean = out.col(first + i).segment(h * hd, hd).dot(doh.col(i));
                dsi = scale * pi * (dsi - mean);
                p.col(i).tail(keys - seen).setZero();
                ds.col(i).tail(keys - seen).setZero();
            }
            dv.block(kv, 0, hd, keys).noalias() += doh * p.transpose();
            dq.block(h * hd, first, hd, count).noalias() += kh * ds;
            dk.block(kv, 0, hd, keys).noalias() += qh * ds.transpose();
        }
    }
}

/// y = silu(gate) * up, with silu(g) = g / (1 + exp(-g)).
template <real S>
void swiglu(const_column_view<S> gate, const_column_view<S> up, column_view<S> y) {
    y.array() = gate.array() / (S(1) + (-gate.array()).exp()) * up.array();
}

/// dgate = dy up silu'(gate), dup = dy silu(gate); both are overwritten, and `dup` may be the memory of `dy`.
template <real S>
void swiglu_backward(const_column_view<S> gate, const_column_view<S> up, const_column_view<S> dy, column_view<S> dgate,
                     column_view<S> dup) {
    dgate.array() = S(1) / (S(1) + (-gate.array()).exp());
    for (index j = 0; j < gate.cols(); ++j) {
        for (index i = 0; i < gate.rows(); ++i) {
            const S g = gate(i, j);
            const S sigmoid = dgate(i, j);
            const S d = dy(i, j);
            dgate(i, j) = d * up(i, j) * sigmoid * (S(1) + g * (S(1) - sigmoid));
            dup(i, j) = d * g * sigmoid;
        }
    }
}

}  // namespace llama

#endif  // LLAMA_KERNELS_HPP

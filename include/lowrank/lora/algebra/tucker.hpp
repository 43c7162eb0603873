// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_TUCKER_HPP
#define LOWRANK_LORA_ALGEBRA_TUCKER_HPP

/// \file
/// The small core of a convolution's factor in LoHa and LoKr ("effective conv2d"): sum_j t[i, j, k] b[j, q].
///
///     lowrank::matrix<float> right = lowrank::tucker_right(t, b, taps);     // r x (columns of b * taps)
///
/// With it sum_ij t[i, j, k] a[i, p] b[j, q] is the product a^T * right, and LoHa and LoKr need no case of their own.

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// M[i, q * taps + k] = sum_j t[i, j * taps + k] b[j, q], for t r x (s taps) and b s x n.
template <real S>
[[nodiscard]] matrix<S> tucker_right(const matrix<S>& t, const matrix<S>& b, index taps) {
    detail::expects(taps >= 1 && t.cols() == b.rows() * taps, "tucker_right: t must have rows of b times taps columns");
    matrix<S> m = matrix<S>::Zero(t.rows(), b.cols() * taps);
    for (index q = 0; q < b.cols(); ++q) {
        for (index j = 0; j < b.rows(); ++j) {
            m.middleCols(q * taps, taps) += b(j, q) * t.middleCols(j * taps, taps);
        }
    }
    return m;
}

/// Gradients of t and b from that of tucker_right(t, b, taps).
template <real S>
struct tucker_gradient {
    matrix<S> t = {};
    matrix<S> b = {};
};

/// dt[i, j, k] = sum_q dM[i, q, k] b[j, q], db[j, q] = sum_ik dM[i, q, k] t[i, j, k].
template <real S>
[[nodiscard]] tucker_gradient<S> tucker_backward(const matrix<S>& t, const matrix<S>& b, index taps,
                                                 const matrix<S>& dm) {
    detail::expects_shape("tucker_backward", "dm", dm.rows(), dm.cols(), t.rows(), b.cols() * taps);
    tucker_gradient<S> g{.t = matrix<S>::Zero(t.rows(), t.cols()), .b = matrix<S>::Zero(b.rows(), b.cols())};
    for (index q = 0; q < b.cols(); ++q) {
        const auto part = dm.middleCols(q * taps, taps);
        for (index j = 0; j < b.rows(); ++j) {
            g.t.middleCols(j * taps, taps) += b(j, q) * part;
            g.b(j, q) = part.cwiseProduct(t.middleCols(j * taps, taps)).sum();
        }
    }
    return g;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_TUCKER_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_TUCKER_HPP
#define LOWRANK_LORA_ALGEBRA_TUCKER_HPP

/// \file
/// The small core of a convolution's factor ("effective conv2d" of LyCORIS): sum_j t[i, j, k] b[j, q].
///
///     lowrank::matrix<float> right = lowrank::tucker_right(core, factor, 9);     // r x (columns of factor * taps)
///
/// With it sum_ij t[i, j, k] a[i, p] b[j, q] is the product a^T * right, and the kinds that use it need no case of their own.

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// M[i, q * taps + k] = sum_j t[i, j * taps + k] b[j, q], for t r x (s taps) and b s x n.
template <real S>
[[nodiscard]] matrix<S> tucker_right(const matrix<S>& t, const matrix<S>& b, index taps);

/// Gradients of t and b from that of tucker_right(t, b, taps).
template <real S>
struct tucker_gradient {
    matrix<S> t = {};
    matrix<S> b = {};
};

/// dt[i, j, k] = sum_q dM[i, q, k] b[j, q], db[j, q] = sum_ik dM[i, q, k] t[i, j, k].
template <real S>
[[nodiscard]] tucker_gradient<S> tucker_backward(const matrix<S>& t, const matrix<S>& b, index taps,
                                                 const matrix<S>& dm);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/algebra/tucker.ipp>
#endif

#endif  // LOWRANK_LORA_ALGEBRA_TUCKER_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_PROJECTED_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_PROJECTED_SVD_HPP

/// \file
/// The end of every sketched method: the triplets of A inside the range of Q, and their completion to a given number.

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// The k leading singular triplets of A inside the range of Q, from the tall B^T = A^T Q: A ~ Q B. `function` is named in
/// messages.
template <real S>
[[nodiscard]] decomposition<S> svd_within(const char* function, const matrix<S>& q, const matrix<S>& b_transposed,
                                          index k);

/// Completes a factorization of an A of lower rank to k triplets with s = 0 and orthonormal vectors.
template <real S>
void pad_with_zeros(decomposition<S>& f, index k);

}  // namespace lowrank::inline LOWRANK_ABI::detail

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/detail/projected_svd.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_PROJECTED_SVD_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP

/// \file
/// min over rank k of || L (W - W') R ||_F: the truncation that is best for given inputs, gradients, or both.
///
///     lowrank::gram_accumulator c(w.cols());                       // inputs of the layer: L = I, R R^T = X X^T
///     for (const auto& x : batches) lowrank::throw_if_failed(c.add(x));
///     auto best = lowrank::weighted_svd(w, 64, {.right = lowrank::gram_weighting(c.sum()).value()});
///     log(best.error.frobenius);                                   // || (W - W') X ||_F, exactly
///     auto w64 = best.product();                                   // two factors
///
/// One function, seven methods: identity is the plain SVD; a diagonal on the right is ASVD, LQER or QERA-approx, on
/// either side FWSVD; a Gram matrix on the right is SVD-LLM (Cholesky: v1, eigenvectors: v2) and DRONE; a triangle from
/// QR of the activations is COALA; Gram matrices on both sides are the Kronecker-factored Fisher of GFWSVD.
///
/// With M = L W R = U diag(s) V^T the optimum is W' = L^+ U_k U_k^T L W, of error sqrt(sum_{i>=k} s_i^2). R is never
/// inverted, and without L nothing is; W' agrees with a projection of W also where R says nothing.

#include <algorithm>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/weighted/weighting.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The two sides of || L (W - W') R ||_F: L^T L = left (m x m), R R^T = right (n x n).
struct weightings {
    weighting left = {};
    weighting right = {};
};

namespace detail {

/// The work of `weighted_svd`; `function` is named in messages.
template <real S>
[[nodiscard]] decomposition<S> weighted_svd_of(const char* function, const matrix<double>& w, const weightings& m);

}  // namespace detail

/// Decomposes a dense W in the given weightings, in double, for every rank: truncate(k) is argmin over rank k of
/// || L (W - W') R ||_F. Values, `norm` and errors are those of L W R; u and v are not orthonormal, but in the plain
/// weighting.
///
/// \pre    A weighting that is not the identity has the dimension of its side.
/// \return `non_finite` if W holds NaN or infinity. Exact for singular weightings: components the weighting cannot see
///         (s_i = 0) come last, and add nothing.
/// \cost   That of a double `svd` of the m x n product, and m n (m + n) flops for full weightings.
template <detail::dense_expression W>
[[nodiscard]] decomposition<weight_scalar<W>> weighted_svd(const W& w, const weightings& m) {
    return detail::weighted_svd_of<weight_scalar<W>>("weighted_svd", copy_in<double>(detail::evaluated(w)), m);
}

/// The same at one rank, with the error || L (W - W') R ||_F that it leaves.
///
/// \pre    0 <= k <= min(m, n)
/// \return, \cost As for all ranks.
template <detail::dense_expression W>
[[nodiscard]] decomposition<weight_scalar<W>> weighted_svd(const W& w, index k, const weightings& m = {}) {
    detail::expects_rank("weighted_svd", k, w.rows(), w.cols());
    auto f = weighted_svd(w, m);
    return f ? f.leading(std::min(k, f.size())) : std::move(f);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/weighted/weighted.ipp>
#endif

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP

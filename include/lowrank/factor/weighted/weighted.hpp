// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP

/// \file
/// min over rank k of || L (W - W') R ||_F: the truncation that is best for given inputs, gradients, or both.
///
///     lowrank::gram_accumulator c(w.cols());                       // inputs of the layer: L = I, R R^T = X X^T
///     for (const auto& x : batches) lowrank::throw_if_failed(c.add(x));
///     auto best = lowrank::weighted_svd(w, 64, {.right = *lowrank::gram_weighting(c.sum())});
///     log(best.error, best.product);                               // || (W - W') X ||_F, exactly
///
/// One function, seven methods: identity is the plain SVD; a diagonal on the right is ASVD, LQER or QERA-approx, on
/// either side FWSVD; a Gram matrix on the right is SVD-LLM (Cholesky: v1, eigenvectors: v2) and DRONE; a triangle from
/// QR of the activations is COALA; Gram matrices on both sides are the Kronecker-factored Fisher of GFWSVD.
///
/// With M = L W R = U diag(s) V^T the optimum is W' = L^+ U_k U_k^T L W, of error sqrt(sum_{i>=k} s_i^2). R is never
/// inverted, and without L nothing is; W' agrees with a projection of W also where R says nothing.

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/weighted/weighting.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The two sides of || L (W - W') R ||_F: L^T L = left (m x m), R R^T = right (n x n).
struct weightings {
    weighting left = {};
    weighting right = {};
};

template <real S>
class weighted_spectrum;

namespace detail {

/// The work of `make_weighted_spectrum`; `function` is named in messages.
template <real S>
[[nodiscard]] result<weighted_spectrum<S>> weighted_spectrum_of(const char* function, const matrix<double>& w,
                                                                const weightings& m);

}  // namespace detail

/// The decomposition of a weight in a weighting: computed once, serves every rank. Immutable.
template <real S>
class weighted_spectrum {
public:
    using scalar = S;

    weighted_spectrum() = default;

    [[nodiscard]] index rows() const noexcept { return outer_.rows(); }
    [[nodiscard]] index cols() const noexcept { return inner_.cols(); }
    [[nodiscard]] index size() const noexcept { return s_.size(); }
    /// Singular values of L W R, descending: the loss of dropping one component is its value. Rank rules read them.
    [[nodiscard]] const vector<double>& values() const noexcept { return s_; }

    /// The best W' of rank k. Nested: a smaller one is the first columns and rows of a larger. \pre 0 <= k <= size()
    [[nodiscard]] low_rank<S> truncate(index k) const;

    /// || L (W - W'_k) R ||_F, exact. \pre 0 <= k <= size()
    [[nodiscard]] double error(index k) const;
    /// The same over || L W R ||_F, and 0 where that is 0.
    [[nodiscard]] double relative_error(index k) const;

    friend result<weighted_spectrum> detail::weighted_spectrum_of<S>(const char* function, const matrix<double>& w,
                                                                     const weightings& m);

private:
    matrix<S> outer_ = {};  ///< L^+ U, or W V: m x p.
    matrix<S> inner_ = {};  ///< U^T L W, or V^T: p x n.
    vector<double> s_ = {};
};

/// Decomposes a dense W in the given weightings, in double.
///
/// \pre    A weighting that is not the identity has the dimension of its side.
/// \return `non_finite` if W holds NaN or infinity. Exact for singular weightings: components the weighting cannot see
///         (s_i = 0) come last.
/// \cost   That of a double `svd` of the m x n product, and m n (m + n) flops for full weightings.
template <detail::dense_weight W>
[[nodiscard]] result<weighted_spectrum<weight_scalar<W>>> make_weighted_spectrum(const W& w, const weightings& m) {
    return detail::weighted_spectrum_of<weight_scalar<W>>("make_weighted_spectrum", copy_in<double>(w), m);
}

/// The best rank-k approximation in a weighting, and its error there.
template <real S>
struct weighted_svd_result : fallible {
    low_rank<S> product = {};
    double error = 0.0;     ///< || L (W - W') R ||_F.
    double relative = 0.0;  ///< The same over || L W R ||_F.
};

namespace detail {

template <real S>
[[nodiscard]] weighted_svd_result<S> weighted_svd_of(const matrix<double>& w, index k, const weightings& m);

}  // namespace detail

/// argmin over rank k of || L (W - W') R ||_F. For several ranks of one weight use `make_weighted_spectrum`.
///
/// \pre    0 <= k <= min(m, n). Where a singular weighting sees fewer components, the result has as many as it sees.
/// \return, \cost As `make_weighted_spectrum`.
template <detail::dense_weight W>
[[nodiscard]] weighted_svd_result<weight_scalar<W>> weighted_svd(const W& w, index k, const weightings& m = {}) {
    return detail::weighted_svd_of<weight_scalar<W>>(copy_in<double>(w), k, m);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/weighted/weighted.ipp>
#endif

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP

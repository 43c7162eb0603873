// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP

/// \file
/// min over rank k of || L (W - W') R ||_F: the truncation that is best for given inputs, gradients, or both.
///
///     lowrank::gram_accumulator c(w.cols());                       // inputs of the layer: L = I, R R^T = X X^T
///     ... c.add(x) ...
///     auto best = lowrank::weighted_svd(w, 64, {.right = *lowrank::gram_weighting(c.sum())});
///     log(best->error, best->product);                             // || (W - W') X ||_F, exactly
///
/// One function, seven methods: identity is the plain SVD; a diagonal on the right is ASVD, LQER or QERA-approx, on
/// either side FWSVD; a Gram matrix on the right is SVD-LLM (Cholesky: v1, eigenvectors: v2) and DRONE; a triangle from
/// QR of the activations is COALA; Gram matrices on both sides are the Kronecker-factored Fisher of GFWSVD.
///
/// With M = L W R = U diag(s) V^T the optimum is W' = L^+ U_k U_k^T L W, of error sqrt(sum_{i>=k} s_i^2). R is never
/// inverted, and without L nothing is; W' agrees with a projection of W also where R says nothing.

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/weighted/weighting.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The two sides of || L (W - W') R ||_F: L^T L = left (m x m), R R^T = right (n x n).
struct weightings {
    weighting left = {};
    weighting right = {};
};

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
    [[nodiscard]] low_rank<S> truncate(index k) const {
        detail::expects_in_range("weighted_spectrum::truncate", "k", k, index{0}, size());
        return {.left = outer_.leftCols(k), .right = inner_.topRows(k)};
    }

    /// || L (W - W'_k) R ||_F, exact. \pre 0 <= k <= size()
    [[nodiscard]] double error(index k) const {
        detail::expects_in_range("weighted_spectrum::error", "k", k, index{0}, size());
        return s_.tail(size() - k).stableNorm();
    }
    /// The same over || L W R ||_F, and 0 where that is 0.
    [[nodiscard]] double relative_error(index k) const {
        const double whole = error(0);
        return whole > 0.0 ? error(k) / whole : 0.0;
    }

    template <detail::dense_weight W>
    friend result<weighted_spectrum<weight_scalar<W>>> make_weighted_spectrum(const W& w, const weightings& m);

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
    using S = weight_scalar<W>;
    if (!all_finite(w)) {
        return status{errc::non_finite, "weighted_svd: the matrix holds NaN or infinity; repair or exclude the weight"};
    }
    for (const auto& [side, want] : {std::pair<const weighting*, index>{&m.left, w.rows()}, {&m.right, w.cols()}}) {
        if (side->kind() != weighting_kind::identity && side->dimension() != want) [[unlikely]] {
            detail::fail_contract_with("weighted_svd: the ", side == &m.left ? "left" : "right",
                                       " weighting must have dimension ", want, ", got ", side->dimension());
        }
    }
    const matrix<double> wide = w.template cast<double>();
    const matrix<double> lw = m.left.times_root(wide.transpose()).transpose();  // L W
    const auto f = svd(matrix<double>(m.right.times_root(lw)));
    if (!f) {
        return f.why;
    }
    weighted_spectrum<S> out;
    out.s_ = f.s;
    if (m.left.kind() != weighting_kind::identity && m.right.kind() == weighting_kind::identity) {
        // No inverse on this side either: W' = W V_k V_k^T.
        out.outer_ = (wide * f.v).template cast<S>();
        out.inner_ = f.v.transpose().template cast<S>();
    } else {
        out.outer_ = m.left.apply_root_pinv(f.u).template cast<S>();
        out.inner_ = (f.u.transpose() * lw).template cast<S>();
    }
    return out;
}

/// The best rank-k approximation in a weighting, and its error there.
template <real S>
struct weighted_svd_result {
    low_rank<S> product = {};
    double error = 0.0;     ///< || L (W - W') R ||_F.
    double relative = 0.0;  ///< The same over || L W R ||_F.
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

/// argmin over rank k of || L (W - W') R ||_F. For several ranks of one weight use `make_weighted_spectrum`.
///
/// \pre    k >= 0; above the size of the decomposition, that size is used.
/// \return, \cost As `make_weighted_spectrum`.
template <detail::dense_weight W>
[[nodiscard]] weighted_svd_result<weight_scalar<W>> weighted_svd(const W& w, index k, const weightings& m = {}) {
    detail::expects(k >= 0, "weighted_svd: the rank must not be negative");
    const auto spec = make_weighted_spectrum(w, m);
    if (!spec) {
        return {.why = spec.error()};
    }
    const index kept = std::min(k, spec->size());
    return {
        .product = spec->truncate(kept), .error = spec->error(kept), .relative = spec->relative_error(kept), .why = {}};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTED_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_TRUNCATED_SVD_HPP
#define LOWRANK_FACTOR_TRUNCATED_SVD_HPP

/// \file
/// The first k singular triplets with evidence of what they leave out; here exactly, from the full decomposition.
///
///     auto f = lowrank::truncated_svd(w, 16);
///     if (!f) return log(f.why.message);
///     auto w16 = f.product();                          // two factors
///     log(f.error.frobenius, to_string(f.error.how));  // "exact"
///
/// For one small rank of a large weight `randomized_svd` is many times faster; for several ranks of one weight
/// `make_spectrum` decomposes once.

#include <algorithm>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/error_evidence.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// U (m x k), s (k, descending), V (n x k) with A ~ U diag(s) V^T, and the error of that. On failure the factors are
/// empty and `why` says why.
template <real S>
struct truncated_svd_result : fallible {
    matrix<S> u = {};
    vector<S> s = {};
    matrix<S> v = {};
    error_evidence error = {};

    /// U diag(s) V^T as two factors, left = U diag(s), right = V^T.
    [[nodiscard]] low_rank<S> product() const;
};

namespace detail {

template <real S>
[[nodiscard]] truncated_svd_result<S> truncated_svd_of(const result<spectrum<S>>& spec, index k);

}  // namespace detail

/// The best rank-k approximation of a dense W, from its full SVD.
///
/// \pre    0 <= k <= min(m, n)
/// \return As `svd`: `non_finite` if W holds NaN or infinity. The error is exact.
/// \cost   That of `svd`, whatever k.
template <detail::dense_weight W>
[[nodiscard]] truncated_svd_result<weight_scalar<W>> truncated_svd(const W& w, index k) {
    detail::expects_rank("truncated_svd", k, w.rows(), w.cols());
    return detail::truncated_svd_of<weight_scalar<W>>(make_spectrum(w), k);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/truncated_svd.ipp>
#endif

#endif  // LOWRANK_FACTOR_TRUNCATED_SVD_HPP

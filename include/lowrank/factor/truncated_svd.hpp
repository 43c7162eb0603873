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
#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How an error is known.
enum class error_source {
    exact,       ///< The tail of the full spectrum.
    difference,  ///< sqrt(||A||_F^2 - ||U^T A||_F^2), which has the digits stated in `deviation`.
    residual,    ///< ||A - U diag(s) V^T||_F formed panel by panel.
    sampled,     ///< Estimated from random vectors the factorization has not seen.
};

/// The stable name of a source.
[[nodiscard]] inline const char* to_string(error_source how) noexcept {
    switch (how) {
        case error_source::exact: return "exact";
        case error_source::difference: return "difference of norms";
        case error_source::residual: return "residual";
        case error_source::sampled: return "sampled";
    }
    return "unknown";
}

/// ||A - A_k||_F and how it is known.
struct error_evidence {
    double frobenius = 0.0;  ///< ||A - A_k||_F.
    double relative = 0.0;   ///< The same over ||A||_F; 0 for A = 0.
    error_source how = error_source::exact;
    /// Relative uncertainty of `frobenius`: rounding for the computed kinds, at most one standard deviation for a
    /// sampled one.
    double deviation = 0.0;
};

/// U (m x k), s (k, descending), V (n x k) with A ~ U diag(s) V^T, and the error of that. On failure the factors are
/// empty and `why` says why.
template <real S>
struct truncated_svd_result {
    matrix<S> u = {};
    vector<S> s = {};
    matrix<S> v = {};
    error_evidence error = {};
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }

    /// U diag(s) V^T as two factors, left = U diag(s), right = V^T.
    [[nodiscard]] low_rank<S> product() const { return {.left = u * s.asDiagonal(), .right = v.transpose()}; }
};

/// The best rank-k approximation of a dense W, from its full SVD.
///
/// \pre    0 <= k <= min(m, n)
/// \return As `svd`: `non_finite` if W holds NaN or infinity. The error is exact.
/// \cost   That of `svd`, whatever k.
template <detail::dense_weight W>
[[nodiscard]] truncated_svd_result<weight_scalar<W>> truncated_svd(const W& w, index k) {
    using S = weight_scalar<W>;
    detail::expects_in_range("truncated_svd", "rank", k, index{0}, std::min<index>(w.rows(), w.cols()));
    truncated_svd_result<S> out;
    auto spec = make_spectrum(w);
    if (!spec) {
        out.why = spec.error();
        return out;
    }
    out.u = spec->u().leftCols(k);
    out.s = spec->values().head(k);
    out.v = spec->v().leftCols(k);
    out.error = {.frobenius = spec->error(k),
                 .relative = spec->relative_error(k),
                 .how = error_source::exact,
                 .deviation = static_cast<double>(std::numeric_limits<S>::epsilon())};
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_TRUNCATED_SVD_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_HPP
#define LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_HPP

/// \file
/// How far off a factorization is, from a few random products: the spectral norm of the rest with its confidence, and
/// the leave-one-out error of a sketch.
///
///     auto f = lowrank::randomized_svd(w, 8);
///     auto e = lowrank::spectral_norm(lowrank::residual(w, f), {.samples = 10});
///     std::printf("between %g and %g with probability %g\n", e.lower, e.upper, e.confidence);
///
/// Halko, Martinsson, Tropp, SIAM Review 53 (2011), Lemma 4.1; Dixon, SIAM J. Numer. Anal. 20 (1983), for the powers.
/// Epperly, Tropp, SIAM J. Sci. Comput. 46 (2024), for leaving one out.

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/sketched/detail/sketched_operator.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A - U diag(s) V^T as a linear operator, never formed. The weight must outlive it; the factors are copied.
template <operator_like M>
[[nodiscard]] operator_sum<operator_scalar<M>> residual(const M& m, const decomposition<operator_scalar<M>>& f) {
    using S = operator_scalar<M>;
    return operator_sum<S>({{any_operator<S>(as_operator(m)), S(1)}, {any_operator<S>(f.product()), S(-1)}});
}

/// The residual of a matrix that ends with the expression would be one of freed memory: name the matrix.
template <operator_like M>
requires detail::owns_memory<M>
void residual(const M&&, const decomposition<operator_scalar<M>>&) = delete;

struct spectral_norm_options {
    index samples = 10;        ///< Random directions r: the upper bound fails with probability 2^-r.
    int power_iterations = 3;  ///< q: each tightens both bounds and costs two products with `samples` columns.
    std::uint64_t seed = 0;    ///< Same seed, same directions.
};

/// lower <= ||E||_2 always (to rounding), ||E||_2 <= upper with probability `confidence`.
struct spectral_norm_result : fallible {
    double lower = 0.0;
    double upper = 0.0;
    double confidence = 0.0;
};

namespace detail {

template <real S>
[[nodiscard]] spectral_norm_result spectral_norm_of(sketched_operator<S> e, const spectral_norm_options& options);

}  // namespace detail

/// Bounds on ||E||_2 for any linear operator, from r Gaussian directions w and q powers:
/// ||E|| <= (2 sqrt(2 / pi) max_i ||(E E^T)^q E w_i||)^(1 / (2 q + 1)) with probability 1 - 2^-r.
///
/// \pre    samples >= 1, power_iterations >= 0.
/// \return `non_finite` if a product holds NaN or infinity.
/// \cost   2 q + 1 products with r columns, and one more.
template <operator_like M>
[[nodiscard]] spectral_norm_result spectral_norm(const M& m, const spectral_norm_options& options = {}) {
    using S = operator_scalar<M>;
    workspace ws;
    return detail::spectral_norm_of<S>(detail::sketched_operator<S>(as_operator(m), ws), options);
}

/// The leave-one-out error of a sketch Y = A Omega (Omega with independent columns of identity covariance): an unbiased
/// estimate of E ||A - Q Q^T A||_F^2 for a sketch of one column less, square root taken; no product with A needed.
///
/// Each column is predicted from the others; what they miss of column i has length 1 / sqrt((Y^T Y)^-1_ii).
/// \pre    Y is finite, and has at most as many columns as rows. 0 for dependent columns: the range is found.
/// \cost   2 m w^2 flops in double.
template <real S>
[[nodiscard]] double leave_one_out_error(const matrix<S>& y);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/error_estimate.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_HPP

/// \file
/// The smallest truncated SVD whose error meets a tolerance, found without knowing the rank.
///
///     auto f = lowrank::adaptive_svd(w, {.tolerance = 0.1});             // ||W - W_k||_F <= 0.1 ||W||_F
///     auto g = lowrank::adaptive_svd(w, {.tolerance = lowrank::tolerance_for_energy(0.95)});
///     std::printf("rank %td\n", f.s.size());
///
/// A block at a time, Q grows and W = A^T Q with it; ||A||_F^2 - ||W||_F^2 is the squared error of A ~ Q W^T exactly,
/// at no cost. The blocks come from a Krylov space, so few more columns are computed than are kept.
///
/// Yu, Gu, Li, SIAM J. Matrix Anal. Appl. 39 (2018), randQB_EI.

#include <cmath>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/sketched/detail/sketched_operator.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct adaptive_svd_options {
    double tolerance = 0.1;    ///< ||A - A_k||_F <= tolerance ||A||_F.
    index max_rank = -1;       ///< Largest rank; negative: no limit. The result then says what error it has.
    index block = 32;          ///< Columns per product.
    std::uint64_t seed = 0;    ///< Same seed, same start, on every machine.
    index error_samples = 16;  ///< Columns held back: the error of a map without a weight, and of errors near rounding.
};

/// The tolerance at which a truncation keeps `share` of sum s^2: sqrt(1 - share). \pre 0 <= share <= 1
[[nodiscard]] inline double tolerance_for_energy(double share) {
    detail::expects_in_range("tolerance_for_energy", "share", share, 0.0, 1.0);
    return std::sqrt(1.0 - share);
}

namespace detail {

template <real S>
[[nodiscard]] decomposition<S> adaptive_svd_of(sketched_operator<S> a, const adaptive_svd_options& options);

}  // namespace detail

/// The leading triplets of A, as many as ||A - A_k||_F <= tolerance ||A||_F needs.
///
/// For a dense weight the promise is checked against the weight itself before the result is returned; the rank is the
/// smallest within the space found, which may be one or two above the optimum. For another map the error is estimated
/// from held-back columns, and the promise holds up to the stated deviation. A tolerance below 200 eps is met to that.
/// \pre    tolerance >= 0, block >= 1.
/// \return `non_finite` if a product holds NaN or infinity, or a value or the error does not fit its scalar. With `max_rank` reached, the best of that rank and its error.
/// \cost   2 products with `block` columns for each `block` columns of the space, which ends a little above the rank.
/// \note   As `krylov_svd`.
template <operator_like M>
[[nodiscard]] decomposition<operator_scalar<M>> adaptive_svd(const M& m, const adaptive_svd_options& options,
                                                             workspace& ws) {
    using S = operator_scalar<M>;
    return detail::adaptive_svd_of<S>(detail::sketched_operator<S>(as_operator(m), ws), options);
}

/// The same with scratch memory of its own.
template <operator_like M>
[[nodiscard]] decomposition<operator_scalar<M>> adaptive_svd(const M& m, const adaptive_svd_options& options = {}) {
    workspace ws;
    return adaptive_svd(m, options, ws);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/adaptive_svd.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_HPP

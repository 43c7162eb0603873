// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_HPP

/// \file
/// The leading singular triplets of a matrix we can only multiply with, by randomized subspace iteration.
///
///     auto f = lowrank::randomized_svd(w, 64, {.oversample = 16, .power_iterations = 2, .seed = 7});
///     if (!f) return log(f.why.message);
///     log(f.error.relative, to_string(f.error.how));   // how far off, and how that is known
///
/// Halko, Martinsson, Tropp, SIAM Review 53 (2011), Algorithms 4.4 and 5.1, with an orthonormal basis after every pass.
/// The subspace is only as good as the decay of the spectrum lets it be: on slowly decaying weights raise
/// `power_iterations` or use `krylov_svd`, and read the error.

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/sketched/detail/sketched_operator.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct randomized_svd_options {
    index oversample = 8;      ///< Columns sketched beyond the rank, then dropped.
    int power_iterations = 2;  ///< Passes of A A^T; each costs two more products.
    std::uint64_t seed = 0;    ///< Same seed, same sketch, on every machine.
    index error_samples = 8;   ///< Extra columns of the first product that estimate the error of a non-dense map.
};

namespace detail {

template <real S>
[[nodiscard]] decomposition<S> randomized_svd_of(sketched_operator<S> a, index k,
                                                 const randomized_svd_options& options);

}  // namespace detail

/// The k leading singular triplets of A (m x n), a dense weight or any linear operator.
///
/// U^T A = diag(s) V^T holds to rounding, or A V = U diag(s) for a tall A, so the values never exceed the true ones and
/// the error is that of a projection.
/// \pre    0 <= k <= min(m, n); no option is negative.
/// \return `non_finite` if a product holds NaN or infinity, or a value or the error does not fit its scalar. The error is exact to the stated deviation for a dense
///         weight, an estimate for other maps.
/// \cost   2 (power_iterations + 1) products with k + oversample columns, 8 (m + n) (k + oversample)^2 flops each pass
///         for the bases.
/// \note   The sketch is equal on every machine; the result bit-equal for one binary and CPU.
template <operator_like M>
[[nodiscard]] decomposition<operator_scalar<M>> randomized_svd(const M& m, index k,
                                                               const randomized_svd_options& options, workspace& ws) {
    using S = operator_scalar<M>;
    return detail::randomized_svd_of<S>(detail::sketched_operator<S>(as_operator(m), ws), k, options);
}

/// The same with scratch memory of its own.
template <operator_like M>
[[nodiscard]] decomposition<operator_scalar<M>> randomized_svd(const M& m, index k,
                                                               const randomized_svd_options& options = {}) {
    workspace ws;
    return randomized_svd(m, k, options, ws);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/randomized_svd.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_KRYLOV_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_KRYLOV_SVD_HPP

/// \file
/// The leading singular triplets by a block Krylov space with a random start: near exact, also where spectra decay
/// slowly.
///
///     auto f = lowrank::krylov_svd(w, 64);             // block and depth chosen from the rank
///     auto g = lowrank::krylov_svd(w, 64, {.block = 32, .depth = 10});  // deeper: more accurate, two products each
///
/// Subspace iteration keeps the last block of (A A^T)^q A Omega; this keeps all of them, for the same products.
/// Small blocks make a pass over A cheap (it is memory that costs), depth makes it accurate.
///
/// Musco, Musco, NIPS 2015 (block Krylov iteration). Melnichenko et al. 2024 (ABRIK).

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/sketched/detail/sketched_operator.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct krylov_svd_options {
    index block = 0;          ///< Columns per product; 0 chooses 16 for small ranks, 32 above 32, 64 above 128.
    int depth = 0;            ///< Blocks in the space; 0 chooses a space of 3 ranks, at least 4 blocks, and in float
                              ///< ends earlier once the values have settled to rounding.
    std::uint64_t seed = 0;   ///< Same seed, same start, on every machine.
    index error_samples = 8;  ///< Extra columns of the first product that estimate the error of a non-dense map.
};

namespace detail {

template <real S>
[[nodiscard]] decomposition<S> krylov_svd_of(sketched_operator<S> a, index k, const krylov_svd_options& options);

}  // namespace detail

/// The k leading singular triplets of A (m x n), a dense weight or any linear operator.
///
/// As in `randomized_svd`, a projection: values are never above the true ones. What is below 200 eps of a product counts as
/// rounding.
/// \pre    0 <= k <= min(m, n); no option is negative.
/// \return `non_finite` if a product holds NaN or infinity, or a value or the error does not fit its scalar. The error is exact to the stated deviation for a dense
///         weight, an estimate for other maps.
/// \cost   2 depth products with `block` columns, and with d = block depth: 4 m d^2 + n d^2 flops for the bases.
/// \note   The start is equal on every machine; the result bit-equal for one binary and CPU.
template <operator_like M>
[[nodiscard]] decomposition<operator_scalar<M>> krylov_svd(const M& m, index k, const krylov_svd_options& options,
                                                           workspace& ws) {
    using S = operator_scalar<M>;
    return detail::krylov_svd_of<S>(detail::sketched_operator<S>(as_operator(m), ws), k, options);
}

/// The same with scratch memory of its own.
template <operator_like M>
[[nodiscard]] decomposition<operator_scalar<M>> krylov_svd(const M& m, index k,
                                                           const krylov_svd_options& options = {}) {
    workspace ws;
    return krylov_svd(m, k, options, ws);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/krylov_svd.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_KRYLOV_SVD_HPP

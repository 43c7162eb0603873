// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_TRUNCATED_SVD_HPP
#define LOWRANK_FACTOR_TRUNCATED_SVD_HPP

/// \file
/// The first k singular triplets and the exact error of leaving out the others, from the full decomposition.
///
///     auto f = lowrank::truncated_svd(w, 16);
///     if (!f) return log(f.why.message);
///     auto w16 = f.product();                          // two factors
///     log(f.error.frobenius, to_string(f.error.how));  // "exact"
///
/// For one small rank of a large weight `krylov_svd` is many times faster; for several ranks of one weight `svd`
/// decomposes once.

#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The best rank-k approximation of a dense W, from its full SVD.
///
/// \pre    0 <= k <= min(m, n)
/// \return As `svd`: `non_finite` if W holds NaN or infinity. The error is exact.
/// \cost   That of `svd`, whatever k.
template <detail::dense_expression W>
[[nodiscard]] decomposition<weight_scalar<W>> truncated_svd(const W& w, index k) {
    detail::expects_rank("truncated_svd", k, w.rows(), w.cols());
    auto f = detail::svd_of_dense<weight_scalar<W>>("truncated_svd", w);
    return f ? f.leading(k) : std::move(f);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_TRUNCATED_SVD_HPP

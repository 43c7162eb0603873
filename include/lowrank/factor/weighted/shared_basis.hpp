// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_HPP
#define LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_HPP

/// \file
/// Several weights that read the same inputs, W_g ~ C_g B with one basis B (k x n) for all: q, k and v of a layer, the
/// experts of a mixture, one projection of neighbouring layers.
///
///     auto f = lowrank::shared_basis<float>(weights, 128);
///     log(f->relative, f->separate_relative);          // at equal parameters: shared, each for itself
///
/// B x is computed once for all of them. Wang et al., Basis Sharing, ICLR 2025 (arXiv 2410.03765).

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/ranks/rank_budget.hpp>
#include <lowrank/factor/weighted/weighted.hpp>
#include <lowrank/factor/weighted/weighting.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W_g ~ coefficients[g] * basis, and the comparison with separate factors of the same total size.
template <real S>
struct shared_basis_result {
    std::vector<matrix<S>> coefficients = {};  ///< m_g x k each.
    matrix<S> basis = {};                      ///< k x n.
    double error = 0.0;                        ///< sqrt(sum_g || (W_g - C_g B) R ||_F^2), exact.
    double relative = 0.0;                     ///< The same over sqrt(sum_g || W_g R ||_F^2).
    index parameters = 0;                      ///< k (n + sum m_g).
    double separate_relative = 0.0;            ///< Of separate truncations with `allocate_ranks` of the same size.
};

/// The best shared basis of rank k, in the weighting R R^T = right of the common inputs.
///
/// \pre    At least one weight, all with n columns; k >= 0 (at most min(sum m_g, n) is used); the weighting fits n.
/// \return `non_finite` if a weight holds NaN or infinity.
/// \cost   One weighted SVD of the stacked weights, and one of each for the comparison.
template <real S>
[[nodiscard]] result<shared_basis_result<S>> shared_basis(std::span<const matrix<S>> weights, index k,
                                                          const weighting& right = {}) {
    detail::expects(!weights.empty() && k >= 0, "shared_basis: needs at least one weight and a rank of at least 0");
    const index n = weights[0].cols();
    index rows = 0;
    for (const auto& w : weights) {
        detail::expects_shape("shared_basis", "every weight", w.rows(), w.cols(), w.rows(), n);
        rows += w.rows();
    }
    matrix<S> stacked(rows, n);
    index at = 0;
    for (const auto& w : weights) {
        stacked.middleRows(at, w.rows()) = w;
        at += w.rows();
    }
    const auto spec = make_weighted_spectrum(stacked, {.right = right});
    if (!spec) {
        return spec.error();
    }
    const index kept = std::min(k, spec->size());
    auto whole = spec->truncate(kept);
    shared_basis_result<S> out;
    out.basis = std::move(whole.right);
    out.error = spec->error(kept);
    out.relative = spec->relative_error(kept);
    out.parameters = kept * (rows + n);
    at = 0;
    std::vector<budget_item> items;
    for (const auto& w : weights) {
        out.coefficients.push_back(whole.left.middleRows(at, w.rows()));
        at += w.rows();
        const auto own = make_weighted_spectrum(w, {.right = right});
        if (!own) {
            return own.error();
        }
        items.push_back({.values = own->values(), .rows = w.rows(), .cols = n});
    }
    const double norm = spec->error(0);
    if (norm > 0.0) {
        for (auto& item : items) {
            item.values /= norm;
        }
        out.separate_relative = std::sqrt(allocate_ranks(items, out.parameters).loss);
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_IPP
#define LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_IPP

#include <lowrank/factor/weighted/shared_basis.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/ranks/rank_budget.hpp>
#include <lowrank/factor/weighted/weighted.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
shared_basis_result<S> shared_basis(std::span<const matrix<S>> weights, index k, const weighting& right) {
    detail::expects(!weights.empty(), "shared_basis: needs at least one weight");
    const index n = weights[0].cols();
    index rows = 0;
    for (const auto& w : weights) {
        detail::expects_shape("shared_basis", "every weight", w.rows(), w.cols(), w.rows(), n);
        rows += w.rows();
    }
    detail::expects_rank("shared_basis", k, rows, n);
    matrix<double> stacked(rows, n);
    index at = 0;
    for (const auto& w : weights) {
        stacked.middleRows(at, w.rows()) = copy_in<double>(w);
        at += w.rows();
    }
    const weightings sides{.left = {}, .right = right};
    const auto all = detail::weighted_svd_of<S>("shared_basis", stacked, sides);
    if (!all) {
        return {{.why = all.why}};
    }
    const index kept = std::min(k, all.size());
    auto whole = all.truncate(kept, sigma_split::right);
    shared_basis_result<S> out;
    out.basis = std::move(whole.right);
    out.error = all.error_at(kept);
    out.relative = all.relative_error(kept);
    out.parameters = kept * (rows + n);
    at = 0;
    std::vector<budget_item> items;
    for (const auto& w : weights) {
        out.coefficients.push_back(whole.left.middleRows(at, w.rows()));
        at += w.rows();
        const auto own = detail::weighted_svd_of<S>("shared_basis", copy_in<double>(w), sides);
        if (!own) {
            return {{.why = own.why}};
        }
        items.push_back(
            {.values = head_in<double>(own.s, own.size()), .rows = w.rows(), .cols = n, .may_stay_dense = false});
    }
    const double norm = all.norm();
    if (norm > 0.0) {
        for (auto& item : items) {
            item.values /= norm;
        }
        out.separate_relative = std::sqrt(allocate_ranks(items, out.parameters).loss);
    }
    return out;
}

#ifdef LOWRANK_COMPILED
template shared_basis_result<float> shared_basis(std::span<const matrix<float>>, index, const weighting&);
template shared_basis_result<double> shared_basis(std::span<const matrix<double>>, index, const weighting&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_SHARED_BASIS_IPP

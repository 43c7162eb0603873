// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_SHRINK_IPP
#define LOWRANK_FACTOR_RANKS_SHRINK_IPP

#include <lowrank/factor/ranks/shrink.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY vector<double> shrink_hard(const singular_values_in& s, double threshold) {
    vector<double> out = s.values();
    for (index i = rank_above_threshold(s, threshold); i < s.size(); ++i) {
        out(i) = 0.0;
    }
    return out;
}

LOWRANK_BODY vector<double> shrink_soft(const singular_values_in& s, double threshold) {
    vector<double> out = shrink_hard(s, threshold);
    for (double& x : out) {
        x = std::max(x - threshold, 0.0);
    }
    return out;
}

LOWRANK_BODY vector<double> shrink_optimal(const singular_values_in& s, index m, index n, double sigma) {
    vector<double> out = shrink_hard(s, marchenko_pastur_edge(sigma, m, n));
    const double b = static_cast<double>(std::max(m, n));
    const double root = std::sqrt(b > 0.0 ? static_cast<double>(std::min(m, n)) / b : 1.0);
    const double unit = sigma * std::sqrt(b);
    for (index i = 0; i < out.size() && out(i) > 0.0 && unit > 0.0; ++i) {
        const double y = out(i) / unit;
        // (y^2 - beta - 1)^2 - 4 beta, as a product of factors that do not cancel above the edge, over y^2.
        const double inside = (1.0 - std::pow((1.0 + root) / y, 2)) * (1.0 - std::pow((1.0 - root) / y, 2));
        out(i) *= std::sqrt(std::max(inside, 0.0));
    }
    return out;
}

LOWRANK_BODY vector<double> shrink_optimal(const singular_values_in& s, index m, index n) {
    return s.size() == 0 ? s.values() : shrink_optimal(s, m, n, noise_level_from_median(s, m, n));
}

template <real S>
low_rank<S> with_values(const decomposition<S>& f, const singular_values_in& values) {
    detail::expects(values.size() == f.size(), "with_values: needs one value for each of the decomposition");
    std::vector<index> kept;
    for (index i = 0; i < values.size(); ++i) {
        if (values(i) != 0.0) {
            kept.push_back(i);
        }
    }
    return decomposition<S>(f.u, head_in<S>(values, values.size()), f.v).select(kept);
}

#ifdef LOWRANK_COMPILED
template low_rank<float> with_values(const decomposition<float>&, const singular_values_in&);
template low_rank<double> with_values(const decomposition<double>&, const singular_values_in&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_SHRINK_IPP

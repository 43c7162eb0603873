// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_SHRINK_IPP
#define LOWRANK_FACTOR_RANKS_SHRINK_IPP

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/ranks/shrink.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
vector<S> shrink_hard(const vector<S>& s, double threshold) {
    vector<S> out = s;
    for (index i = rank_above_threshold(s, threshold); i < s.size(); ++i) {
        out(i) = S(0);
    }
    return out;
}

template <real S>
vector<S> shrink_soft(const vector<S>& s, double threshold) {
    const index k = rank_above_threshold(s, threshold);
    vector<S> out;
    out.setZero(s.size());
    for (index i = 0; i < k; ++i) {
        out(i) = static_cast<S>(static_cast<double>(s(i)) - threshold);
    }
    return out;
}

template <real S>
vector<S> shrink_optimal(const vector<S>& s, index m, index n, double sigma) {
    const index k = marchenko_pastur_rank(s, m, n, sigma);
    vector<S> out;
    out.setZero(s.size());
    const double b = static_cast<double>(std::max(m, n));
    const double beta = b > 0.0 ? static_cast<double>(std::min(m, n)) / b : 1.0;
    const double unit = sigma * std::sqrt(b);
    for (index i = 0; i < k; ++i) {
        const double x = static_cast<double>(s(i));
        if (!(unit > 0.0)) {
            out(i) = s(i);
            continue;
        }
        const double y = x / unit;
        // (y^2 - beta - 1)^2 - 4 beta, as a product of factors that do not cancel above the edge, over y^2.
        const double root = std::sqrt(beta);
        const double inside = (1.0 - std::pow((1.0 + root) / y, 2)) * (1.0 - std::pow((1.0 - root) / y, 2));
        out(i) = static_cast<S>(x * std::sqrt(std::max(inside, 0.0)));
    }
    return out;
}

template <real S>
vector<S> shrink_optimal(const vector<S>& s, index m, index n) {
    return s.size() == 0 ? s : shrink_optimal(s, m, n, noise_level_from_median(s, m, n));
}

template <real S>
low_rank<S> with_values(const spectrum<S>& spec, const vector<S>& values) {
    detail::expects(values.size() == spec.size(), "with_values: needs one value for each of the spectrum");
    const index k = static_cast<index>(std::count_if(values.begin(), values.end(), [](S x) { return x != S(0); }));
    low_rank<S> out{.left = matrix<S>(spec.rows(), k), .right = matrix<S>(k, spec.cols())};
    index at = 0;
    for (index i = 0; i < values.size(); ++i) {
        if (values(i) != S(0)) {
            for (index row = 0; row < spec.rows(); ++row) {
                out.left(row, at) = spec.u()(row, i) * values(i);
            }
            for (index col = 0; col < spec.cols(); ++col) {
                out.right(at, col) = spec.v()(col, i);
            }
            ++at;
        }
    }
    return out;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_SHRINKERS_OF(S)                                                  \
    template vector<S> shrink_hard(const vector<S>& s, double);                  \
    template vector<S> shrink_soft(const vector<S>& s, double);                  \
    template vector<S> shrink_optimal(const vector<S>& s, index, index, double); \
    template vector<S> shrink_optimal(const vector<S>& s, index, index);         \
    template low_rank<S> with_values(const spectrum<S>& spec, const vector<S>& values);
LOWRANK_SHRINKERS_OF(float)
LOWRANK_SHRINKERS_OF(double)
#undef LOWRANK_SHRINKERS_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_SHRINK_IPP

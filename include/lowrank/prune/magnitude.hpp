// SPDX-License-Identifier: MIT
#ifndef LOWRANK_PRUNE_MAGNITUDE_HPP
#define LOWRANK_PRUNE_MAGNITUDE_HPP

/// \file
/// Unstructured magnitude pruning: small entries become zero.
///
///     lowrank::prune_to_rate(lowrank::weight_view<float>(w), 9.0);   // LASER's rate: zeroes the smaller 90 %
///     lowrank::keep_largest<float>(values, 100);                     // PEFT's rule: the 100 largest stay
///
/// The two rules of the field differ at ties and by one entry; both are here under their own names.
/// Sharma, Ash, Misra, LASER, arXiv 2312.13558 (code: `dropout`); PEFT, merge_utils: magnitude_based_pruning.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Zeroes every entry with |w| <= t, where t is the value at place int(rate * 0.1 * size) of the sorted magnitudes:
/// at least one entry more than the fraction, and all that tie with it. A place past the end means the last.
///
/// \pre    0 <= rate <= 10; W holds no NaN.
/// \return The number of entries with |w| <= t.
/// \cost   One selection over a copy of the magnitudes.
template <storage T>
index prune_to_rate(weight_view<T> w, double rate) {
    detail::expects_in_range("prune_to_rate", "rate", rate, 0.0, 10.0);
    if (w.size() == 0) {
        return 0;
    }
    using S = compute_t<T>;
    std::vector<S> magnitudes;
    magnitudes.reserve(static_cast<std::size_t>(w.size()));
    for (index i = 0; i < w.rows(); ++i) {
        for (index j = 0; j < w.cols(); ++j) {
            magnitudes.push_back(std::abs(static_cast<S>(w(i, j))));
        }
    }
    const auto place = std::min(static_cast<index>(rate * 0.1 * static_cast<double>(w.size())), w.size() - 1);
    std::nth_element(magnitudes.begin(), magnitudes.begin() + place, magnitudes.end());
    const S threshold = magnitudes[static_cast<std::size_t>(place)];
    index zeroed = 0;
    for (index i = 0; i < w.rows(); ++i) {
        for (index j = 0; j < w.cols(); ++j) {
            if (std::abs(static_cast<S>(w(i, j))) <= threshold) {
                w(i, j) = T(0);
                ++zeroed;
            }
        }
    }
    return zeroed;
}

/// Keeps the `count` entries of largest magnitude and zeroes the others; among equal ones the earlier stays.
///
/// \pre count >= 0; no entry is NaN.
/// \cost One selection over the positions.
template <real S>
void keep_largest(std::span<S> values, index count) {
    detail::expects(count >= 0, "keep_largest: count must not be negative");
    if (count >= static_cast<index>(values.size())) {
        return;
    }
    std::vector<std::size_t> order(values.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        order[i] = i;
    }
    const auto larger = [&](std::size_t a, std::size_t b) {
        const S x = std::abs(values[a]);
        const S y = std::abs(values[b]);
        return x > y || (x == y && a < b);
    };
    std::nth_element(order.begin(), order.begin() + count, order.end(), larger);
    for (auto at = order.begin() + count; at != order.end(); ++at) {
        values[*at] = S(0);
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_PRUNE_MAGNITUDE_HPP

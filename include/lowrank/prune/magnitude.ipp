// SPDX-License-Identifier: MIT
#ifndef LOWRANK_PRUNE_MAGNITUDE_IPP
#define LOWRANK_PRUNE_MAGNITUDE_IPP

#include <lowrank/prune/magnitude.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <storage T>
result<index> prune_to_rate(weight_view<T> w, double rate) {
    detail::expects_in_range("prune_to_rate", "rate", rate, 0.0, 10.0);
    if (!all_finite(w)) {
        return status{errc::non_finite, "prune_to_rate: the weight holds NaN or infinity; repair or exclude it"};
    }
    if (w.size() == 0) {
        return index{0};
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

template <real S>
void keep_largest(std::span<S> values, index count) {
    detail::expects(count >= 0, "keep_largest: count must not be negative");
    detail::expects(all_finite(values.data(), static_cast<index>(values.size())),
                    "keep_largest: every value must be finite; NaN has no place in an order");
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

#ifdef LOWRANK_COMPILED
template result<index> prune_to_rate(weight_view<float>, double);
template result<index> prune_to_rate(weight_view<double>, double);
template result<index> prune_to_rate(weight_view<half>, double);
template result<index> prune_to_rate(weight_view<bfloat16>, double);
template void keep_largest(std::span<float>, index);
template void keep_largest(std::span<double>, index);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_PRUNE_MAGNITUDE_IPP

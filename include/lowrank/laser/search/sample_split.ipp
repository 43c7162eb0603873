// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_IPP
#define LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_IPP

#include <lowrank/laser/search/sample_split.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY sample_split split_samples(index count, const split_options& options) {
    detail::expects(options.train >= 0 && options.validation > 0 && options.train + options.validation < 1,
                    "split_samples: shares must not be negative, validation positive, and their sum below 1");
    const index min_train = options.train > 0 ? 1 : 0;
    detail::expects(count >= 2 + min_train, "split_samples: there are too few samples for all parts");
    sample_split out;
    out.order.resize(static_cast<std::size_t>(count));
    std::iota(out.order.begin(), out.order.end(), index{0});
    const philox rng(options.seed);
    for (std::size_t i = out.order.size(); i > 1; --i) {
        std::swap(out.order[i - 1], out.order[static_cast<std::size_t>(rng.below(i, i))]);
    }
    const auto part = [count](double share) {
        return static_cast<index>(std::lround(share * static_cast<double>(count)));
    };
    const index train = min_train == 0 ? 0 : std::clamp<index>(part(options.train), 1, count - 2);
    const index validation = std::clamp<index>(part(options.validation), 1, count - train - 1);
    out.train = {0, train};
    out.validation = {train, train + validation};
    out.test = {train + validation, count};
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_IPP

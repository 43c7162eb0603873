// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_HPP
#define LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_HPP

/// \file
/// Samples divided at random into training, validation and test samples, as a function of a seed.
///
///     auto parts = lowrank::split_samples(1000, {.validation = 0.2, .seed = 7});
///     // parts.order[i] is sample number i; parts.validation = [0, 200), parts.test = [200, 1000)

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct split_options {
    double train = 0;         ///< Share for training (an adapter, say), rounded to whole samples.
    double validation = 0.2;  ///< Share for validation; the rest is the test part.
    std::uint64_t seed = 0;
};

/// A random order of samples, divided into three ranges.
struct sample_split {
    std::vector<index> order = {};  ///< order[i] is the sample at position i; the ranges are of positions.
    sample_range train = {};
    sample_range validation = {};
    sample_range test = {};
};

/// Shuffles `count` samples and divides them, in the order training, validation, test. The validation and test parts
/// are never empty, nor is the training part if its share is not 0.
///
/// \pre  count >= 2, or 3 with a train share; shares in [0, 1) with a sum below 1.
/// \note The same for one seed on every machine.
[[nodiscard]] inline sample_split split_samples(index count, const split_options& options = {}) {
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

#endif  // LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_HPP

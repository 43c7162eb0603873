// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_HPP
#define LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_HPP

/// \file
/// Samples divided at random into training, validation and test samples, as a function of a seed.
///
///     auto parts = lowrank::split_samples(1000, {.validation = 0.2, .seed = 7});
///     // parts.order[i] is sample number i; parts.validation = [0, 200), parts.test = [200, 1000)

#include <cstdint>
#include <vector>

#include <lowrank/core/config.hpp>
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
LOWRANK_API [[nodiscard]] sample_split split_samples(index count, const split_options& options = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/sample_split.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_SAMPLE_SPLIT_HPP

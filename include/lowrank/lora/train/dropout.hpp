// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_DROPOUT_HPP
#define LOWRANK_LORA_TRAIN_DROPOUT_HPP

/// \file
/// Inverted dropout whose mask is a pure function of an entry's position, so that it is never stored.
///
///     const lowrank::dropout_key key{.probability = 0.1, .seed = 1, .layer = 3, .step = 40};
///     lowrank::matrix<float> kept(x.rows(), x.cols());
///     lowrank::apply_dropout<float>(key, 0, x, kept);     // the backward pass repeats the call and gets the same mask
///
/// An entry survives with probability 1 - p and is then divided by 1 - p (Srivastava et al., JMLR 15, 2014).

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Identifies one mask. The same key gives the same mask on every machine and for every split of the batch.
struct dropout_key {
    double probability = 0;   ///< Of dropping, in [0, 1). 0 switches dropout off.
    std::uint64_t seed = 0;   ///< Of the training run.
    std::uint64_t layer = 0;  ///< Which layer.
    std::uint64_t step = 0;   ///< Which update.
    index first_column = 0;   ///< Number of the batch's first column: micro-batches of one step continue counting.
};

/// Y = mask(key) * X / (1 - p), entry by entry. Column j of X is column `first + j` of the mask. Y may be X.
///
/// \pre  X and Y have one shape; 0 <= p < 1.
/// \cost One random block per four entries.
template <real S>
void apply_dropout(const dropout_key& key, index first, const_column_view<S> x, column_view<S> y);

/// Y += mask(key) * X / (1 - p): the backward pass of `apply_dropout`.
template <real S>
void add_dropout(const dropout_key& key, index first, const_column_view<S> x, column_view<S> y);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/train/dropout.ipp>
#endif

#endif  // LOWRANK_LORA_TRAIN_DROPOUT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_HPP
#define LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_HPP

/// \file
/// Multiplicative dropout for rotations in blocks: in training, some blocks of the rotation are replaced by identities.
///
///     auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), rotating);
///     const auto dropped = lowrank::drop_blocks(layer.rotation, {.probability = 0.1, .seed = 1, .step = step});
///     auto g = lowrank::zero_gradient(layer);          // forward, then rotated_backward(layer, ...)
///     lowrank::clear_dropped(g.rotation, dropped);     // they got no gradient
///
/// As in PEFT, floor(probability * count) blocks of one factor, both drawn anew, become the identity; a shared
/// block stays. (Where PEFT takes `module_dropout` for rotations without factors, it never applies it.)

#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The blocks that were replaced by identities, and their factor.
struct dropped_blocks {
    index factor = 0;
    std::vector<index> blocks = {};
};

/// Replaces some blocks of `r` by identities, chosen by the key's seed, layer and step alone.
/// \pre probability in [0, 1]
template <real S>
[[nodiscard]] dropped_blocks drop_blocks(block_rotation<S>& r, const dropout_key& key);

/// Sets the gradient of dropped blocks to zero: their parameters had no effect.
template <real S>
void clear_dropped(block_rotation<S>& gradient, const dropped_blocks& dropped);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/train/block_dropout.ipp>
#endif

#endif  // LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_HPP

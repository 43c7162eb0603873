// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_HPP
#define LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_HPP

/// \file
/// Multiplicative dropout for OFT and BOFT: in training, some blocks of the rotation do not turn.
///
///     auto layer = lowrank::rotate(base, adapter);
///     const auto dropped = lowrank::drop_blocks(layer.rotation, {.probability = 0.1, .seed = 1, .step = step});
///     // forward, rotated_backward(layer, ...)
///     lowrank::clear_dropped(g.rotation, dropped);     // they got no gradient
///
/// As in PEFT's BOFT, floor(probability * count) blocks of one factor, both drawn anew, become the identity; a shared
/// block stays. (PEFT's OFT takes `module_dropout` and never applies it.)

#include <cstdint>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Which blocks of which factor are identities for a while.
struct dropped_blocks {
    index factor = 0;
    std::vector<index> blocks = {};
};

/// Makes identities of some blocks of `r`, chosen by the key's seed, layer and step alone.
/// \pre probability in [0, 1]
template <real S>
[[nodiscard]] dropped_blocks drop_blocks(block_rotation<S>& r, const dropout_key& key) {
    detail::expects(0 <= key.probability && key.probability <= 1, "drop_blocks: probability must be in [0, 1]");
    dropped_blocks out;
    if (key.probability == 0 || r.factors.empty()) {
        return out;
    }
    const philox rng(philox(key.seed, key.layer).bits64(key.step));
    const auto below = [&rng](index bound, std::uint64_t at) {
        return static_cast<index>(rng.bits64(at) % static_cast<std::uint64_t>(bound));
    };
    out.factor = below(static_cast<index>(r.factors.size()), 0);
    auto& f = r.factors[static_cast<std::size_t>(out.factor)];
    const index b = f.block_size();
    const index count = f.blocks.cols() / b;
    if (count == 1) {
        return out;
    }
    std::vector<index> order(static_cast<std::size_t>(count));
    for (index k = 0; k < count; ++k) {
        order[static_cast<std::size_t>(k)] = k;
    }
    const auto wanted = static_cast<index>(key.probability * static_cast<double>(count));
    for (index k = 0; k < wanted; ++k) {  // the first steps of a random permutation
        const index other = k + below(count - k, static_cast<std::uint64_t>(k) + 1);
        std::swap(order[static_cast<std::size_t>(k)], order[static_cast<std::size_t>(other)]);
        const index block = order[static_cast<std::size_t>(k)];
        f.blocks.middleCols(block * b, b).setIdentity();
        out.blocks.push_back(block);
    }
    return out;
}

/// Sets the gradient of dropped blocks to zero: their parameters did not take part.
template <real S>
void clear_dropped(block_rotation<S>& gradient, const dropped_blocks& dropped) {
    detail::expects(dropped.blocks.empty() || dropped.factor < static_cast<index>(gradient.factors.size()),
                    "clear_dropped: the gradient is of another rotation");
    for (const index block : dropped.blocks) {
        auto& f = gradient.factors[static_cast<std::size_t>(dropped.factor)];
        f.blocks.middleCols(block * f.block_size(), f.block_size()).setZero();
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_HPP

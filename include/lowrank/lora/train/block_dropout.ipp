// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_IPP
#define LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_IPP

#include <lowrank/lora/train/block_dropout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
dropped_blocks drop_blocks(block_rotation<S>& r, const dropout_key& key) {
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
        for (index j = 0; j < b; ++j) {
            for (index i = 0; i < b; ++i) {
                f.blocks(i, block * b + j) = S(i == j);
            }
        }
        out.blocks.push_back(block);
    }
    return out;
}

template <real S>
void clear_dropped(block_rotation<S>& gradient, const dropped_blocks& dropped) {
    detail::expects(dropped.blocks.empty() || dropped.factor < static_cast<index>(gradient.factors.size()),
                    "clear_dropped: the gradient is of another rotation");
    for (const index block : dropped.blocks) {
        auto& f = gradient.factors[static_cast<std::size_t>(dropped.factor)];
        const index size = f.block_size() * f.block_size();
        std::fill_n(f.blocks.data() + block * size, size, S(0));
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_BLOCK_DROPOUT_OF(S)                                                 \
    template dropped_blocks drop_blocks<S>(block_rotation<S>&, const dropout_key&); \
    template void clear_dropped<S>(block_rotation<S>&, const dropped_blocks&);
LOWRANK_BLOCK_DROPOUT_OF(float)
LOWRANK_BLOCK_DROPOUT_OF(double)
#undef LOWRANK_BLOCK_DROPOUT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_BLOCK_DROPOUT_IPP

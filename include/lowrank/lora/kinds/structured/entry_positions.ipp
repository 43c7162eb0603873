// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_ENTRY_POSITIONS_IPP
#define LOWRANK_LORA_KINDS_STRUCTURED_ENTRY_POSITIONS_IPP

#include <lowrank/lora/kinds/structured/entry_positions.hpp>

#include <random>
#include <unordered_map>

#include <lowrank/core/check.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY entry_positions torch_random_positions(index rows, index cols, index count, std::uint64_t seed) {
    const bool is_positive = rows >= 1 && cols >= 1;
    detail::expects(is_positive && rows < torch_positions_limit && cols <= (torch_positions_limit - 1) / rows &&
                        count >= 0 && count <= rows * cols,
                    "torch_random_positions: count must be at most rows * cols, and that below torch_positions_limit");
    std::mt19937 draw(static_cast<std::uint32_t>(seed & 0xFFFFFFFFU));
    std::unordered_map<index, index> moved;  // what lies where something else lay at first
    const auto at = [&](index i) {
        const auto found = moved.find(i);
        return found != moved.end() ? found->second : i;
    };
    const index size = rows * cols;
    entry_positions out(2, count);
    for (index i = 0; i < count; ++i) {
        const index from = i + 1 < size ? i + static_cast<index>(draw()) % (size - i) : i;
        const index taken = at(from);
        moved[from] = at(i);
        out(0, i) = static_cast<std::int32_t>(taken / cols);
        out(1, i) = static_cast<std::int32_t>(taken % cols);
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_ENTRY_POSITIONS_IPP

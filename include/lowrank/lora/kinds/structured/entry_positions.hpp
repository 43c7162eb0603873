// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_ENTRY_POSITIONS_HPP
#define LOWRANK_LORA_KINDS_STRUCTURED_ENTRY_POSITIONS_HPP

/// \file
/// Some entries of a matrix by row and column, and how PyTorch draws them.
///
///     auto at = lowrank::torch_random_positions(4096, 4096, 1000, 777);       // 2 x 1000, in the order of PyTorch
///
/// PyTorch's `randperm` on the CPU swaps entry i with one of the entries behind it, drawn by the Mersenne Twister
/// MT19937 (Matsumoto, Nishimura, ACM TOMACS 8(1), 1998) as 32 bits modulo what is left.

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Rows (first row) and columns (second row) of n entries.
using entry_positions = matrix<std::int32_t>;

/// From this many entries on releases of PyTorch differ.
inline constexpr index torch_positions_limit = 214'748'364;

/// The first `count` of `torch.randperm(rows * cols, generator seeded with seed)` as rows v / cols and columns v % cols.
///
/// \pre  0 <= count <= rows * cols < `torch_positions_limit`.
/// \cost O(count) steps and memory. Equal on every machine.
LOWRANK_API [[nodiscard]] entry_positions torch_random_positions(index rows, index cols, index count,
                                                                 std::uint64_t seed);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/structured/entry_positions.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_ENTRY_POSITIONS_HPP

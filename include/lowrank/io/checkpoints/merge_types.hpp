// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_MERGE_TYPES_HPP
#define LOWRANK_IO_CHECKPOINTS_MERGE_TYPES_HPP

/// \file
/// What a merge of whole checkpoints takes and what it says of each weight.
///
///     const lowrank::adapter_to_merge half{.adapter = &*poet, .strength = 0.5};

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/lora/merge/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One of several adapters that are merged together. Adapters whose changes are sums may share a tensor; DoRA and
/// (IA)^3 may not.
struct adapter_to_merge {
    const peft_adapter* adapter = nullptr;
    double strength = 1;  ///< W + strength * (what the adapter alone would make of W - W).
};

/// What became of one weight.
struct merged_weight : merge_audit {
    dtype type = dtype::f32;
    index rank = 0;                      ///< Columns of the factors that were added.
    double receipt_bits_per_weight = 0;  ///< What undoing would need; known where it was checked.
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_MERGE_TYPES_HPP

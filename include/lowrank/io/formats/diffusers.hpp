// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DIFFUSERS_HPP
#define LOWRANK_IO_FORMATS_DIFFUSERS_HPP

/// \file
/// Adapters of diffusers, whose scaling is 1: M.lora.down.weight and M.lora.up.weight, and before that
/// A.processor.to_k_lora.down.weight and up for the projections of an attention A.
///
///     auto why = lowrank::write_adapter("x.safetensors", *poet, "diffusers");     // lora_B times the scaling
///
/// huggingface/diffusers.

#include <lowrank/core/config.hpp>
#include <lowrank/io/formats/adapter_format.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_API [[nodiscard]] adapter_format diffusers_format();
LOWRANK_API [[nodiscard]] adapter_format diffusers_old_format();

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/diffusers.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_DIFFUSERS_HPP

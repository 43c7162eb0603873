// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DIFFUSERS_HPP
#define LOWRANK_IO_FORMATS_DIFFUSERS_HPP

/// \file
/// Adapters of diffusers. Today it keeps PEFT's names in one file, transformer.M.lora_A.weight, and PEFT's configuration in the
/// header. Before that its scaling was 1: M.lora.down.weight and M.lora.up.weight, and at first
/// A.processor.to_k_lora.down.weight and up for the projections of an attention A.
///
///     auto why = lowrank::write_adapter("x.safetensors", *poet, "diffusers_peft");    // every alpha and rank exactly
///
/// huggingface/diffusers. The oldest names are also those of XLabs for Flux: A.processor.qkv_lora1.down.weight.

#include <lowrank/core/config.hpp>
#include <lowrank/io/formats/adapter_format.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_API [[nodiscard]] adapter_format diffusers_format();
LOWRANK_API [[nodiscard]] adapter_format diffusers_old_format();
/// Read as PEFT's names, which they are.
LOWRANK_API [[nodiscard]] adapter_format diffusers_peft_format();

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/diffusers.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_DIFFUSERS_HPP

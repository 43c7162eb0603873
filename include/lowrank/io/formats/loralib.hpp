// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_LORALIB_HPP
#define LOWRANK_IO_FORMATS_LORALIB_HPP

/// \file
/// Adapters of loralib: M.lora_A and M.lora_B; alpha is in the program that trained it.
///
///     auto read = lowrank::read_adapter("x.safetensors", {.lora_alpha = 16});     // the file does not hold alpha
///
/// microsoft/LoRA.

#include <lowrank/core/config.hpp>
#include <lowrank/io/formats/adapter_format.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_API [[nodiscard]] adapter_format loralib_format();

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/loralib.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_LORALIB_HPP

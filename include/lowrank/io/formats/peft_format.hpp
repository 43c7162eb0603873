// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_PEFT_FORMAT_HPP
#define LOWRANK_IO_FORMATS_PEFT_FORMAT_HPP

/// \file
/// PEFT's adapters as a format: the folder (peft.hpp), and its tensors alone in one file.
///
///     auto why = lowrank::write_adapter("folder", *poet, "peft");

#include <lowrank/core/config.hpp>
#include <lowrank/io/formats/adapter_format.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_API [[nodiscard]] adapter_format peft_format();

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/peft_format.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_PEFT_FORMAT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ORIGINAL_BASE_HPP
#define LOWRANK_IO_FORMATS_ORIGINAL_BASE_HPP

/// \file
/// Adapters whose initialization took a part of the base away, as plain LoRA on the base of before.
///
///     auto plain = lowrank::on_original_base(*poet, *before);   // read with base_is_residual; merges into `before` now

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The adapter with what its initialization took from the base put back: B A - B0 A0 of rank 2 r, where B0 A0 is made anew
/// from the original weights, as PEFT does when it loads such an adapter; of KaSA it is their r smallest components. An
/// adapter for whose sake no weight was changed is returned as it is.
///
/// \return `unsupported` for an initialization that weights alone do not determine ("pissa_niter_[n]" is random, CorDA
///         and LoRA-GA need data, LoftQ a quantized base) and for modules that are neither plain LoRA of a layer nor KaSA; `mismatch` for
///         a module without a weight of its shape; `non_finite`.
/// \cost   PiSSA, KaSA: an SVD of each weight. OLoRA: a QR of r columns.
LOWRANK_API [[nodiscard]] result<peft_adapter> on_original_base(const peft_adapter& adapter,
                                                                const checkpoint& original);

/// The same with the adapter as it was before training, saved then: B A - B0 A0 for every initialization that took B0 A0
/// from the weights (PiSSA of any kind, OLoRA, CorDA, LoRA-GA). No weights are needed.
///
/// \return `unsupported` for LoftQ, whose base is quantized besides, and for modules that are no plain LoRA; `mismatch` for a
///         module that `initial` lacks or has of another shape.
LOWRANK_API [[nodiscard]] result<peft_adapter> on_original_base(const peft_adapter& adapter,
                                                                const peft_adapter& initial);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/original_base.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_ORIGINAL_BASE_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LIST_HPP
#define LOWRANK_IO_PEFT_KINDS_LIST_HPP

/// \file
/// Every adapter kind that is read and written.
///
///     for (const lowrank::peft_description* kind : lowrank::peft_kinds()) log(std::to_string(kind->types().size()));
///
/// A new kind is a header beside this one and a line in list.ipp. A program adds a kind by passing a longer list.

#include <span>

#include <lowrank/core/config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Descriptions of kinds, each named once.
using peft_kind_list = std::span<const peft_description* const>;

/// Those of this library.
LOWRANK_API [[nodiscard]] peft_kind_list peft_kinds();

/// How modules are applied, by kind.
using peft_application_list = std::span<const peft_application* const>;

/// That of the kinds of this library.
LOWRANK_API [[nodiscard]] peft_application_list peft_applications();

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/kinds/list.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_KINDS_LIST_HPP

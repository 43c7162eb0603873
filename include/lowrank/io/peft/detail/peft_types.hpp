// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP

/// \file
/// The type that a name of peft_type stands for, among some kinds.
///
///     const auto type = detail::find_type(peft_kinds(), "LORA");       // type->type.leaves, type->kind->join

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/io/peft/kinds/list.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A type and the kind that reads its modules.
struct typed_kind {
    peft_type type;
    const peft_description* kind;
};

/// The types of some kinds, each once.
LOWRANK_INLINE [[nodiscard]] std::vector<typed_kind> types_of(peft_kind_list kinds) {
    std::vector<typed_kind> out;
    for (const peft_description* kind : kinds) {
        if (kind->join != nullptr) {
            for (peft_type& type : kind->types()) {
                out.push_back({std::move(type), kind});
            }
        }
    }
    return out;
}

LOWRANK_INLINE [[nodiscard]] std::optional<typed_kind> find_type(peft_kind_list kinds, std::string_view name) {
    for (typed_kind& t : types_of(kinds)) {
        if (t.type.name == name) {
            return std::move(t);
        }
    }
    return std::nullopt;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP

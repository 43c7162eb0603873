// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP

/// \file
/// The type that a name of peft_type stands for, among some kinds.
///
///     const auto type = detail::find_type(peft_kinds(), "LORA");       // type->type.leaves, type->kind->join

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/io/peft/kinds/list.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A type, the kind that reads its modules, and forms of it that read those they claim.
struct typed_kind {
    peft_type type;
    const peft_description* kind;
    std::vector<const peft_description*> forms = {};

    /// The kind that reads a module.
    [[nodiscard]] const peft_description& kind_of(const peft_options& options, std::string_view module) const {
        for (const peft_description* form : forms) {
            if (form->claims(options, module)) {
                return *form;
            }
        }
        return *kind;
    }
    /// The kind and the forms.
    [[nodiscard]] std::vector<const peft_description*> kinds() const {
        std::vector<const peft_description*> all = {kind};
        all.insert(all.end(), forms.begin(), forms.end());
        return all;
    }
};

/// Adds the keys and leaves of a form to those of its type.
LOWRANK_INLINE void add_form(peft_type& to, const peft_type& form) {
    to.keys.insert(to.keys.end(), form.keys.begin(), form.keys.end());
    to.known.insert(to.known.end(), form.known.begin(), form.known.end());
    to.refused.insert(to.refused.end(), form.refused.begin(), form.refused.end());
    for (const std::string_view leaf : form.leaves) {
        if (std::find(to.leaves.begin(), to.leaves.end(), leaf) == to.leaves.end()) {
            to.leaves.push_back(leaf);
        }
    }
}

/// The types of some kinds, each once.
LOWRANK_INLINE [[nodiscard]] std::vector<typed_kind> types_of(peft_kind_list kinds) {
    std::vector<typed_kind> out;
    for (const peft_description* kind : kinds) {
        if (!kind->is_second_form) {
            for (peft_type& type : kind->types()) {
                out.push_back({std::move(type), kind});
            }
        }
    }
    for (const peft_description* form : kinds) {
        if (!form->is_second_form || form->claims == nullptr) {
            continue;
        }
        for (const peft_type& type : form->types()) {
            for (typed_kind& t : out) {
                if (t.type.name == type.name) {
                    t.forms.push_back(form);
                    add_form(t.type, type);
                }
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

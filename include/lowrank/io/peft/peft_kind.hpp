// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_KIND_HPP
#define LOWRANK_IO_PEFT_PEFT_KIND_HPP

/// \file
/// The one description of an adapter kind as a module of an adapter file; one header per kind in kinds/.
///
///     static_assert(lowrank::peft_kind<lowrank::hira_adapter<float>>::type == "HIRA");
///
/// A description of a module type M has: `type`, the peft_type; `leaves`, the last parts of its tensors' names, in the
/// order of writing (not for a second form of a type, which the first one's `join` makes); `label(m)` for messages;
/// `shape(m)`, what its tensors say of the weight; `fit(m, out, in)`, which tells it; `facts(m)`, rank and alpha as a
/// configuration gives them; `change(m)`; `join(parts, context)` and `write(m, tensors)`. Where M is not an adapter with
/// an `adapter_kind` itself: `adapter(m, weight)` and `from(any_adapter)`, or `only_merges`, why there is none. If there
/// is something that all modules share: `join_shared(parts)`, `write_shared(m, tensors)`. `check_peft_kind` names what
/// is missing.

#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How modules of type M stand in adapter files: specialized in kinds/. This one is of no module.
template <class M>
struct peft_kind;

/// The shape of the weight that a module is for, as far as its tensors say it; 0 where they do not.
struct module_shape {
    index out = 0;
    index in = 0;
};

/// A linear layer that a module is for.
struct adapted_weight {
    index out = 0;
    index in = 0;
    bool has_bias = false;
};

/// Rank and alpha of a module as its configuration gives them; 0 for kinds without.
struct peft_facts {
    index r = 0;
    double alpha = 0;
};

/// What a module does to its layer.
struct peft_change {
    /// Of the weight as out x in (of a convolution: out x (in * taps), an input scale per channel). Factors of no size
    /// stand in scales for none, and alone for a module that lacks the shape of its weight.
    weight_change<float> weight = {};
    vector<float> bias = {};  ///< Is added to the layer's bias.
    bool is_table = false;    ///< The weight is the transpose: tokens x dim.

    /// The module lacks the shape of its weight: `fit_module` tells it.
    [[nodiscard]] bool is_unknown() const {
        const auto* delta = std::get_if<low_rank<float>>(&weight);
        return delta != nullptr && delta->rows() == 0 && delta->cols() == 0;
    }
};

namespace detail {
class relative_parts;
class relative_tensors;
struct peft_context;

/// True if an adapter of type M can be applied as it is.
template <class M>
concept is_adapter = requires {
    typename adapter_kind<M>::applied;
};
}  // namespace detail

/// Compiles if `peft_kind<M>` describes M completely; else the message names the part that is missing.
template <class M>
consteval void check_peft_kind() {
    using kind = peft_kind<M>;
    if constexpr (!requires { sizeof(kind); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M> is missing: describe the module in io/peft/kinds");
    } else if constexpr (!requires { std::string_view(kind::type); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::type is missing: its peft_type");
    } else if constexpr (!requires(const M& m) { std::string_view(kind::label(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::label(m) is missing: what messages call it");
    } else if constexpr (!requires(const M& m) { module_shape(kind::shape(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::shape(m) is missing: what its tensors say of the weight's shape");
    } else if constexpr (!requires(M & m) { bool(kind::fit(m, index{}, index{})); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::fit(m, out, in) is missing: it tells the shape of the weight");
    } else if constexpr (!requires(const M& m) { peft_facts(kind::facts(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::facts(m) is missing: rank and alpha");
    } else if constexpr (!requires(const M& m) { peft_change(kind::change(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::change(m) is missing: what it does to a weight");
    } else if constexpr (!requires(const M& m, detail::relative_tensors& to) { kind::write(m, to); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::write(m, tensors) is missing: its tensors");
    } else {
        static_assert(
            detail::is_adapter<M> || requires { kind::only_merges; } || requires { &kind::from; } ||
                requires { &kind::template from<void>; },
            "peft_kind<M>::adapter and from, or only_merges, are missing: how it is applied");
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_KIND_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_MODULES_HPP
#define LOWRANK_IO_PEFT_PEFT_MODULES_HPP

/// \file
/// What a PEFT adapter can hold for a module, what each does to a weight, and how it becomes an adapter that serves.
///
///     for (const auto& [module, relative] : poet->relatives) {
///         const lowrank::peft_change change = lowrank::change_of(relative);             // of the weight, of the bias
///         auto a = lowrank::to_any_adapter(relative, {.out = 4096, .in = 4096});        // applies, trains, merges
///     }
///
/// Everything here follows from the descriptions in kinds/.

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/kinds/list.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <class M>
using kind_of_module = peft_kind<std::remove_cvref_t<M>>;

/// What peft_type a module needs; "LYCORIS", which is none, if PEFT has no such thing.
[[nodiscard]] inline std::string_view type_of(const peft_module& module) {
    return std::visit(
        [](const auto& m) -> std::string_view {
            using kind = kind_of_module<decltype(m)>;
            if constexpr (requires { kind::type_of(m); }) {
                return kind::type_of(m);
            } else {
                return kind::type;
            }
        },
        module);
}

/// Whether a module is of a peft_type, which may have an older name.
[[nodiscard]] inline bool is_of_type(const peft_module& module, std::string_view type) {
    return type_of(module) == type || std::visit(
                                          [&](const auto& m) {
                                              using kind = kind_of_module<decltype(m)>;
                                              if constexpr (requires { kind::old_type; }) {
                                                  return type == kind::old_type;
                                              } else {
                                                  return false;
                                              }
                                          },
                                          module);
}

}  // namespace detail

/// "DoRA", "LoHa", ...: for messages.
[[nodiscard]] inline const char* kind_of(const peft_module& module) {
    return std::visit([](const auto& m) { return detail::kind_of_module<decltype(m)>::label(m); }, module);
}

/// The shape of the weight that a module is for, as far as its tensors say it; 0 where they do not.
LOWRANK_API [[nodiscard]] module_shape shape_of(const peft_module& module);

/// Tells a module the shape of its weight (of a convolution: out x (in * taps)).
/// \return `mismatch`, with the module as it was, if it is for another shape. Types that know their shape from their
///         tensors are compared with the weight where they are used.
LOWRANK_API [[nodiscard]] status fit_module(peft_module& module, index out, index in);

/// What a module does to a weight of the shape that `fit_module` has told it. Of a type that still lacks its shape
/// nothing is said (`is_unknown`).
/// \cost copies the factors; LoHa, LoKr and RandLoRA form theirs, rotations b^3 a block.
LOWRANK_API [[nodiscard]] peft_change change_of(const peft_module& module);

/// Columns of the factors that `change_of` forms where they are larger than the parameters (LoHa, LoKr); 0 of types
/// whose factors are their own.
[[nodiscard]] inline index formed_rank(const peft_module& module) {
    return std::visit(
        [](const auto& m) -> index {
            if constexpr (requires { detail::kind_of_module<decltype(m)>::formed_rank(m); }) {
                return detail::kind_of_module<decltype(m)>::formed_rank(m);
            } else {
                return 0;
            }
        },
        module);
}

/// The same without large factors: a module whose factors would be of a rank above an eighth of the weight's shorter
/// side adds rows that are formed when they are needed. \cost copies the parameters.
LOWRANK_API [[nodiscard]] peft_change change_without_factors(const peft_module& module);

/// The module as an adapter of a linear layer, ready to be refreshed with its weight.
/// \return `mismatch` for a weight of another shape; `unsupported` for what is more than a linear layer's (a
///         convolution, a table, a bias on lora_B) and for kinds that can only be merged.
LOWRANK_API [[nodiscard]] result<any_adapter<float>> to_any_adapter(peft_module module, const adapted_weight& weight);

namespace detail {

/// The adapter as a module of type M, if it is one.
template <class M>
[[nodiscard]] std::optional<M> module_from(const any_adapter<float>& adapter) {
    using kind = peft_kind<M>;
    if constexpr (requires { kind::only_merges; }) {
        return std::nullopt;
    } else if constexpr (is_adapter<M>) {
        const M* m = adapter.get<M>();
        return m != nullptr ? std::optional<M>(*m) : std::nullopt;
    } else {
        return kind::from(adapter);
    }
}

}  // namespace detail

/// An adapter as the module that `write_peft` writes; nothing for a kind that PEFT's files cannot hold.
LOWRANK_API [[nodiscard]] std::optional<peft_module> to_peft_module(const any_adapter<float>& adapter);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/peft_modules.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_PEFT_MODULES_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LIST_HPP
#define LOWRANK_IO_PEFT_KINDS_LIST_HPP

/// \file
/// Every adapter kind that is read and written.
///
///     const lowrank::peft_module module = lowrank::peft_lora{.lora = adapter};
///
/// A new kind is a header beside this one and a line in each of the two lists here.

#include <variant>

#include <lowrank/core/config.hpp>
#include <lowrank/io/peft/kinds/adalora.hpp>
#include <lowrank/io/peft/kinds/boft.hpp>
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/kinds/hra.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/kinds/lycoris_oft.hpp>
#include <lowrank/io/peft/kinds/miss.hpp>
#include <lowrank/io/peft/kinds/oft.hpp>
#include <lowrank/io/peft/kinds/randlora.hpp>
#include <lowrank/io/peft/kinds/vera.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/adapter_kind.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The module types.
using peft_kinds =
    kind_list<peft_lora, adalora_adapter<float>, loha_adapter<float>, lokr_adapter<float>, vera_adapter<float>,
              peft_ia3, oft_adapter<float>, peft_boft, hra_adapter<float>, miss_adapter<float>, miss_bat_adapter<float>,
              peft_randlora, hira_adapter<float>, lycoris_oft>;

namespace detail {

template <class List>
struct variant_of;
template <class... M>
struct variant_of<kind_list<M...>> {
    using type = std::variant<M...>;
};

}  // namespace detail

/// What changes one module, in its own parameters. What a file does not say of the layer's shape is 0 in OFT with one
/// shared block, MiSS and RandLoRA (and VeRA: the width of the shared projection) until `fit_module` says it.
using peft_module = typename detail::variant_of<peft_kinds>::type;

/// Calls `f.operator()<M>()` for the module types in their order until it returns true. \return Whether one did.
template <class F, class... M>
constexpr bool find_peft_kind(kind_list<M...>, F&& f) {
    return (f.template operator()<M>() || ...);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LIST_HPP

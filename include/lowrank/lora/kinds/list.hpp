// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LIST_HPP
#define LOWRANK_LORA_KINDS_LIST_HPP

/// \file
/// Every adapter kind of the library.
///
///     lowrank::for_each_adapter_kind<float>([]<class A>() { std::puts(lowrank::adapter_kind<A>::name.data()); });
///
/// A new kind is a header beside this one and a line in each of the two lists here.

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/adalora.hpp>
#include <lowrank/lora/kinds/boft.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/hira.hpp>
#include <lowrank/lora/kinds/hra.hpp>
#include <lowrank/lora/kinds/ia3.hpp>
#include <lowrank/lora/kinds/kasa.hpp>
#include <lowrank/lora/kinds/loha.hpp>
#include <lowrank/lora/kinds/lokr.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/kinds/miss.hpp>
#include <lowrank/lora/kinds/oft.hpp>
#include <lowrank/lora/kinds/randlora.hpp>
#include <lowrank/lora/kinds/vera.hpp>
#include <lowrank/lora/merge/merged_linear.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The adapter types of scalar S.
template <real S>
using adapter_kinds =
    kind_list<lora_adapter<S>, merged_linear_adapter<S>, adalora_adapter<S>, kasa_adapter<S>, vera_adapter<S>,
              loha_adapter<S>, lokr_adapter<S>, dora_adapter<S>, ia3_adapter<S>, oft_adapter<S>, boft_adapter<S>,
              hra_adapter<S>, miss_adapter<S>, randlora_adapter<S>, hira_adapter<S>>;

namespace detail {

template <class F, class... A>
void for_each_kind(kind_list<A...>, F&& f) {
    (check_adapter_kind<A>(), ...);
    (f.template operator()<A>(), ...);
}

}  // namespace detail

/// Calls `f.operator()<A>()` for every adapter type A of scalar S.
template <real S, class F>
void for_each_adapter_kind(F&& f) {
    detail::for_each_kind(adapter_kinds<S>(), f);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/list.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LIST_HPP

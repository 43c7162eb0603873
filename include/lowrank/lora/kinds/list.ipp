// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LIST_IPP
#define LOWRANK_LORA_KINDS_LIST_IPP

#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/kinds/list.hpp>

#ifdef LOWRANK_COMPILED
namespace lowrank::inline LOWRANK_ABI::detail {

/// Their addresses make the compiler emit the functions of every kind of the library.
template <class... A>
struct held_kinds {
    void (*functions[sizeof...(A)])();
    explicit held_kinds(kind_list<A...>) : functions{reinterpret_cast<void (*)()>(&hold_adapter<A>)...} {}
};
extern const held_kinds held_float_kinds(adapter_kinds<float>{});
extern const held_kinds held_double_kinds(adapter_kinds<double>{});

}  // namespace lowrank::inline LOWRANK_ABI::detail
#endif

#endif  // LOWRANK_LORA_KINDS_LIST_IPP

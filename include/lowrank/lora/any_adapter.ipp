// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ANY_ADAPTER_IPP
#define LOWRANK_LORA_ANY_ADAPTER_IPP

#include <lowrank/lora/any_adapter.hpp>

#include <lowrank/lora/hold_adapter.hpp>

#endif  // LOWRANK_LORA_ANY_ADAPTER_IPP

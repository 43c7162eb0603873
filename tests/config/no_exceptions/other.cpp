// SPDX-License-Identifier: MIT
#include "every_header.hpp"
#include "shared.hpp"

lowrank::lora_adapter<float> made_elsewhere() { return lowrank::make_lora<float>(4, 3, {.r = 2, .seed = 5}); }
fail_function* address_elsewhere() { return &lowrank::detail::fail_contract; }

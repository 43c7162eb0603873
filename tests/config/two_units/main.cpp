// SPDX-License-Identifier: MIT
// Every header in two files of one program: an entity that is not inline would be defined twice.
#include "every_header.hpp"

#include <cstdio>

#include "shared.hpp"

int main() {
    const lowrank::lora_adapter<float> here = lowrank::make_lora<float>(4, 3, {.r = 2, .seed = 5});
    const lowrank::lora_adapter<float> there = made_elsewhere();
    if (here.lora_A != there.lora_A || address_elsewhere() != &lowrank::detail::fail_contract) {
        std::fputs("two translation units disagree\n", stderr);
        return 1;
    }
    return 0;
}

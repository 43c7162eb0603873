// SPDX-License-Identifier: MIT
// An adapter that acts only after its invocation tokens has no merged weight.
// expects: an aLoRA cannot be merged
#include <lowrank/lora/kinds/lora_forms/alora.hpp>

int main() {
    lowrank::row_matrix<float> w = lowrank::row_matrix<float>::Zero(3, 4);
    const lowrank::alora_adapter<float> a{.lora = lowrank::make_lora<float>(3, 4, {.r = 1})};
#ifdef LOWRANK_COMPILE_FAIL
    return lowrank::merge(lowrank::weight_view<float>(w), a) ? 0 : 1;
#else
    return lowrank::merge(lowrank::weight_view<float>(w), a.lora.delta()) ? 0 : 1;
#endif
}

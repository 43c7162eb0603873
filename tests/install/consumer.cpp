// SPDX-License-Identifier: MIT
// What a user's first program does: put an adapter over a weight and look at the result.
#include <cstdio>

#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/kinds/lora.hpp>

int main() {
    lowrank::row_matrix<float> w(6, 4);
    lowrank::fill_uniform(w, -1.0F, 1.0F, lowrank::philox(1));
    const lowrank::matrix<float> x = lowrank::matrix<float>::Identity(4, 4);

    auto adapter = lowrank::make_lora<float>(6, 4, {.r = 2, .lora_alpha = 4});
    adapter.lora_B.setConstant(0.5F);
    const lowrank::matrix<float> y = lowrank::apply(w, x) + lowrank::apply(adapter, x);
    const lowrank::matrix<float> expected = w + adapter.delta().dense();
    if (!((y - expected).norm() < 1e-5F)) {
        std::fputs("W x + delta x is not (W + delta) x\n", stderr);
        return 1;
    }
    return 0;
}

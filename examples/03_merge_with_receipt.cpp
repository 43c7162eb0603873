// SPDX-License-Identifier: MIT
// Merge an adapter into a bfloat16 weight, see what rounding lost, and undo it bit for bit.
#include <cstdio>
#include <cstring>

#include <lowrank/lowrank.hpp>

int main() {
    using lowrank::bfloat16;
    lowrank::row_matrix<float> wide(512, 384);
    lowrank::fill_normal(wide, 0.05F, lowrank::philox(1));
    lowrank::row_matrix<bfloat16> w = wide.cast<bfloat16>();
    const lowrank::row_matrix<bfloat16> before = w;

    auto adapter = lowrank::make_lora<float>(512, 384, {.r = 8, .lora_alpha = 16});
    lowrank::fill_normal(adapter.lora_B, 0.01F, lowrank::philox(2));
    const lowrank::low_rank<float> delta = adapter.delta();

    const auto receipt = lowrank::merge(lowrank::weight_view<bfloat16>(w), delta);
    if (!receipt) {
        std::fprintf(stderr, "%s\n", receipt.error().message.c_str());
        return 1;
    }
    std::printf("merged:   %.1f %% of the entries too small a change to move a bfloat16\n",
                100.0 * receipt->audit.unchanged_fraction());
    std::printf("          relative error of the change as realised: %.3f\n", receipt->audit.relative_error);
    std::printf("receipt:  %.3f bits per weight\n", receipt->bits_per_weight());

    const lowrank::status undone = lowrank::unmerge(lowrank::weight_view<bfloat16>(w), *receipt, delta);
    const auto bytes = static_cast<std::size_t>(w.size()) * sizeof(bfloat16);
    const bool same = undone && std::memcmp(w.data(), before.data(), bytes) == 0;
    std::printf("unmerged: %s\n", same ? "every bit as before" : "NOT as before");
    return same ? 0 : 1;
}

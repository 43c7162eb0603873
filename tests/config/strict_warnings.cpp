// SPDX-License-Identifier: MIT
// A consumer who includes the headers with -I and turns on what compilers warn of: nothing of ours may warn.
#include <vector>

#include <lowrank/lowrank.hpp>

int main() {
    lowrank::row_matrix<float> w(20, 12);
    lowrank::fill_normal(w, 1.0F, lowrank::philox(1));
    const lowrank::row_matrix<lowrank::bfloat16> stored = w.cast<lowrank::bfloat16>();
    const auto f = lowrank::svd(w);
    const auto k = lowrank::krylov_svd(stored, 3);
    const auto r = lowrank::randomized_svd(w, 3);
    const auto a = lowrank::adaptive_svd(w);
    lowrank::gram_accumulator c(12);
    lowrank::throw_if_failed(c.add(lowrank::matrix<float>(w.transpose())));
    const auto best = lowrank::weighted_svd(w, 4, {.right = lowrank::gram_weighting(c.sum()).value()});
    const auto plan = lowrank::allocate_ranks({{.values = f.s.cast<double>(), .rows = 20, .cols = 12}}, 100);
    const auto y = lowrank::apply(best.product(), lowrank::matrix<float>(w.transpose()));
    const auto adapter = lowrank::pissa(f, {.r = 2, .lora_alpha = 2});
    auto receipt = lowrank::truncate_weight<float>(lowrank::weight_view<float>(w), f, 3);
    return f && k && r && a && receipt && plan.ranks.size() == 1 && y.rows() == 20 && adapter.rank() == 2 ? 0 : 1;
}

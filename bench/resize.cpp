// SPDX-License-Identifier: MIT
// A LoRA adapter of rank 64 resized to 32, through QR and a small core and through the dense product, which is how the
// common scripts do it. Each dense run reports how far the two answers are apart.
//
//     bench_resize --benchmark_filter=factored
#include <benchmark/benchmark.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/convert/resize.hpp>

namespace {

lowrank::lora_adapter<float> make_adapter(lowrank::index n) {
    auto a = lowrank::make_lora<float>(n, n, {.r = 64, .lora_alpha = 64, .seed = 1});
    lowrank::fill_normal(a.lora_B, 0.02F, lowrank::philox(2));
    return a;
}

void factored(benchmark::State& state) {
    const auto a = make_adapter(state.range(0));
    for (auto step : state) {
        benchmark::DoNotOptimize(lowrank::resize_lora(a, lowrank::fixed_rank(32)));
    }
}

void dense(benchmark::State& state) {
    const auto a = make_adapter(state.range(0));
    lowrank::low_rank<float> best;
    for (auto step : state) {
        const lowrank::matrix<float> product = a.lora_B * a.lora_A;
        best = lowrank::svd(product).value().truncate(32);
    }
    const auto small = lowrank::resize_lora(a, lowrank::fixed_rank(32)).adapter;
    const double apart = lowrank::frobenius_norm(lowrank::add(small.delta(), best, 1.0F, -1.0F));
    state.counters["difference"] = apart / lowrank::frobenius_norm(best);
}

BENCHMARK(factored)->Arg(1024)->Arg(2048)->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK(dense)->Arg(1024)->Arg(2048)->Arg(4096)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

// SPDX-License-Identifier: MIT

/// \file
/// The skinny product against the roofline and against Eigen, in one run.
///
///     bench_skinny_product --benchmark_filter='float.*4096/4096/32'
///
/// Arguments: rows, cols, k. Counters: `gflops`; `gbytes`, the rate at which the matrix is streamed; `roofline`, the
/// fraction of min(bandwidth, multiply-add peak) where both are probed in turn with the product; `x_eigen`, Eigen's
/// time over ours. All are medians of CPU time.

#include <algorithm>

#include <benchmark/benchmark.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>

#include "roofline.hpp"

namespace {

using namespace lowrank;
using idx = lowrank::index;

template <class M>
M numbers(idx rows, idx cols, std::uint64_t stream) {
    matrix<compute_t<typename M::Scalar>> a(rows, cols);
    fill_uniform(a, compute_t<typename M::Scalar>(-1), compute_t<typename M::Scalar>(1), philox(1, stream));
    return a.template cast<typename M::Scalar>();
}

template <class T, bool Transposed>
void product(benchmark::State& state) {
    using S = compute_t<T>;
    const idx rows = state.range(0), cols = state.range(1), k = state.range(2);
    const row_matrix<T> w = numbers<row_matrix<T>>(rows, cols, 1);
    const matrix<S> x = numbers<matrix<S>>(Transposed ? rows : cols, k, 2);
    matrix<S> y = matrix<S>::Zero(Transposed ? cols : rows, k);
    workspace ws;
    S sink = S(0);
    double peak_flops = 0;
    const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(k);
    const double bytes = static_cast<double>(w.size()) * sizeof(T);
    std::vector<std::function<void()>> work = {
        [&] {
            if constexpr (Transposed) {
                add_transposed_product<T, 1>(S(1), w, x, y, ws);
            } else {
                add_product<T, 1>(S(1), w, x, y, ws);
            }
        },
        [&] {
            sink += lowrank_bench::read_once(reinterpret_cast<const S*>(w.data()), static_cast<idx>(bytes / sizeof(S)));
        },
        [&] { peak_flops = lowrank_bench::multiply_add<S>(200000, sink); },
    };
    if constexpr (real<T>) {
        work.push_back([&] {
            if constexpr (Transposed) {
                y.noalias() += w.transpose() * x;
            } else {
                y.noalias() += w * x;
            }
        });
    }
    const int rounds = flops < 1e8 ? 101 : 9;
    for (auto _ : state) {
        const auto t = lowrank_bench::compare(work, rounds);
        state.SetIterationTime(t[0]);
        const double peak = peak_flops / t[2], bandwidth = bytes / t[1];
        state.counters["gflops"] = 1e-9 * flops / t[0];
        state.counters["gbytes"] = 1e-9 * bytes / t[0];
        state.counters["roofline"] = flops / t[0] / std::min(peak, bandwidth * flops / bytes);
        if constexpr (real<T>) {
            state.counters["x_eigen"] = t[3] / t[0];
        }
        benchmark::DoNotOptimize(sink);
    }
}

void big(benchmark::internal::Benchmark* b) {
    for (const auto& [rows, cols] : {std::pair{4096, 4096}, std::pair{4096, 11008}}) {
        for (const int k : {1, 8, 16, 32, 64, 128}) {
            b->Args({rows, cols, k});
        }
    }
    b->UseManualTime()->Iterations(1)->Unit(benchmark::kMillisecond);
}

void small(benchmark::internal::Benchmark* b) {
    for (const auto& [rows, cols] : {std::pair{64, 64}, std::pair{172, 64}, std::pair{512, 512}}) {
        for (const int k : {1, 16, 128, 512}) {
            b->Args({rows, cols, k});
        }
    }
    b->UseManualTime()->Iterations(1)->Unit(benchmark::kMicrosecond);
}

BENCHMARK(product<float, false>)->Apply(big)->Apply(small);
BENCHMARK(product<float, true>)->Apply(big)->Apply(small);
BENCHMARK(product<double, false>)->Apply(big);
BENCHMARK(product<double, true>)->Apply(big);
BENCHMARK(product<bfloat16, false>)->Apply(big);
BENCHMARK(product<bfloat16, true>)->Apply(big);

}  // namespace

BENCHMARK_MAIN();

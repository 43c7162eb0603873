// SPDX-License-Identifier: MIT

/// \file
/// LoRA against the plain product with the same weight in the same run.
///
///     bench_lora --benchmark_filter=forward
///
/// Arguments: r, d (the weight is d x d), n (columns of the batch), dropout in percent. Counters: `x_plain` is the
/// median time over the median time of the plain product Y += W X, both measured alternately; `x_flops` is what the
/// flops alone would give. Merge reports `x_copy`, the time over that of copying the weight (one read and one write),
/// and `bits`, the size of the receipt per weight.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <ctime>
#include <memory>
#include <vector>

#include <benchmark/benchmark.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/train/adamw.hpp>

namespace {

using namespace lowrank;
using idx = lowrank::index;

template <class F>
double seconds(F&& work) {
    const std::clock_t start = std::clock();  // CPU time: other programs do not count
    work();
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

double median(std::vector<double> times) {
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
}

/// Runs `work` and `reference` alternately; the counter `name` is the ratio of their medians.
template <class W, class R>
void measure(benchmark::State& state, const char* name, W&& work, R&& reference) {
    work();
    reference();
    std::vector<double> mine;
    std::vector<double> theirs;
    for (auto _ : state) {
        theirs.push_back(seconds(reference));
        mine.push_back(seconds(work));
        state.SetIterationTime(mine.back());
    }
    state.counters[name] = median(mine) / median(theirs);
}

template <class S>
struct problem {
    explicit problem(const benchmark::State& state) : r(state.range(0)), d(state.range(1)), n(state.range(2)) {
        fill_normal(w, S(0.02), philox(1));
        fill_normal(x, S(1), philox(2));
        fill_normal(dy, S(1), philox(3));
        adapter = make_lora<S>(d, d, {.r = r});
        fill_normal(adapter.lora_B, S(0.02), philox(4));
    }

    idx r, d, n;
    row_matrix<S> w = row_matrix<S>(d, d);
    matrix<S> x = matrix<S>(d, n);
    matrix<S> y = matrix<S>::Zero(d, n);
    matrix<S> dy = matrix<S>(d, n);
    matrix<S> dx = matrix<S>::Zero(d, n);
    lora_adapter<S> adapter;
    workspace ws = {};

    void plain() { as_operator(w).add_product(S(1), x, y, ws); }
    void plain_back() { as_operator(w).add_transposed_product(S(1), dy, dx, ws); }
};

template <class S>
void forward(benchmark::State& state) {
    problem<S> p(state);
    const adapted_linear<S> layer{.base = as_operator(p.w),
                                  .adapters = {{.adapter = std::make_shared<const any_adapter<S>>(p.adapter)}}};
    measure(
        state, "x_plain", [&] { layer.add_product(S(1), p.x, p.y, p.ws); }, [&] { p.plain(); });
    state.counters["x_flops"] = 1 + 2.0 * double(p.r) / double(p.d);
}

/// A layer under DoRA: diag(m / n) (W + s B A) x, the norms ready.
template <class S>
void dora_forward(benchmark::State& state) {
    problem<S> p(state);
    const auto change = p.adapter.delta();
    const auto norms = adapted_row_norms(p.w, squared_row_norms(p.w), change);
    const dora_linear<S> layer{
        .base = as_operator(p.w), .change = change, .scale = dora_scale<S>(vector<S>::Ones(p.d), norms)};
    measure(
        state, "x_plain", [&] { layer.add_product(S(1), p.x, p.y, p.ws); }, [&] { p.plain(); });
}

/// Forward and backward of one layer, against forward and the base's own backward. The fourth argument is the dropout
/// probability in percent.
template <class S>
void forward_backward(benchmark::State& state) {
    problem<S> p(state);
    auto gradient = zero_gradient(p.adapter);
    column_view<S> dx = p.dx;
    const dropout_key key{.probability = static_cast<double>(state.range(3)) / 100};
    measure(
        state, "x_plain",
        [&] {
            p.plain();
            lora_forward(p.adapter, S(1), p.x, p.y, p.ws, key);
            p.plain_back();
            lora_backward(p.adapter, S(1), p.x, p.dy, gradient, &dx, p.ws, key);
        },
        [&] {
            p.plain();
            p.plain_back();
        });
    // forward 2, A x again 1, B^T dy, dB, dA, dX: 7 products of 2 r d n flops beside 2 of 2 d d n
    state.counters["x_flops"] = 1 + 7.0 * double(p.r) / (2.0 * double(p.d));
}

template <class T>
void merging(benchmark::State& state) {
    using S = compute_t<T>;
    const idx r = state.range(0);
    const idx d = state.range(1);
    matrix<S> values(d, d);
    fill_normal(values, S(0.02), philox(1));
    row_matrix<T> w = values.template cast<T>();
    row_matrix<T> other(d, d);
    auto adapter = make_lora<S>(d, d, {.r = r, .lora_alpha = double(r)});
    const auto scale = static_cast<S>(1e-3 * std::sqrt(3.0 * double(d) / double(r)));  // delta rms 1e-3
    fill_normal(adapter.lora_B, scale, philox(4));
    const auto change = adapter.delta();
    double bits = 0;
    std::vector<double> undo;
    measure(
        state, "x_copy",
        [&] {
            const auto receipt = merge(weight_view<T>(w), change).value();
            bits = receipt.bits_per_weight();
            benchmark::DoNotOptimize(w.data());
            undo.push_back(seconds([&] { throw_if_failed(unmerge(weight_view<T>(w), receipt, change)); }));
        },
        [&] {
            other = w;
            benchmark::DoNotOptimize(other.data());
        });
    state.counters["bits"] = bits;
    state.counters["unmerge_s"] = median(undo);
}

template <class S>
void adamw(benchmark::State& state) {
    matrix<S> p = matrix<S>::Ones(state.range(0), 1);
    matrix<S> g = matrix<S>::Ones(state.range(0), 1);
    const std::vector<trainable<S>> list{make_trainable(p, g)};
    auto moments = make_adamw_state(list);
    vector<S> to(4 * p.size());
    const vector<S> from = vector<S>::Ones(4 * p.size());
    // A step reads four arrays and writes three; the copy reads four and writes four.
    measure(
        state, "x_copy", [&] { adamw_step(list, moments); },
        [&] {
            to = from;
            benchmark::DoNotOptimize(to.data());
        });
}

void shapes(benchmark::internal::Benchmark* b) {
    for (const idx d : {1024, 4096}) {
        for (const idx n : {1, 16, 512}) {
            for (const idx r : {8, 16, 64}) {
                b->Args({r, d, n, 0});
            }
        }
    }
}

BENCHMARK(forward<float>)->Apply(shapes)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(dora_forward<float>)->Apply(shapes)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(forward_backward<float>)->Apply(shapes)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(forward_backward<float>)->Args({16, 4096, 512, 10})->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(merging<float>)
    ->Args({16, 1024})
    ->Args({16, 4096})
    ->Args({64, 4096})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(merging<bfloat16>)->Args({16, 4096})->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(merging<half>)->Args({16, 4096})->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(adamw<float>)->Arg(1 << 24)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

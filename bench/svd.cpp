// SPDX-License-Identifier: MIT

/// \file
/// Decompositions of one dense weight: full, truncated, randomized, each against the plain product of the same run.
///
///     bench_svd --benchmark_filter=randomized
///
/// Counters, all from CPU time: `x_product` is the time over that of one product W X with 64 columns (the cost of
/// touching the weight), `x_eigen` the time of Eigen's own decomposition over ours (larger is better for us), `error`
/// the relative Frobenius error of the result, `excess` how far that is above the optimum. Spectra: fast 10^(-i/20),
/// slow i^-0.5, and noise. Other libraries: bench/peers.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include <Eigen/SVD>

#include <benchmark/benchmark.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/svd.hpp>

#include "roofline.hpp"

namespace {

using lowrank::matrix;
using lowrank::row_matrix;
using lowrank::vector;
using idx = lowrank::index;

enum class decay { fast, slow, noise };

template <class S>
struct weight {
    row_matrix<S> w;
    vector<double> values;  ///< Empty for noise.

    /// ||W - W_k||_F / ||W||_F of the best approximation, NaN where it is not known beforehand.
    [[nodiscard]] double best(idx k) const {
        return values.size() == 0 ? std::nan("") : values.tail(values.size() - k).norm() / values.norm();
    }
};

/// Made once per shape, because making a spectrum costs as much as finding it.
template <class S>
const weight<S>& weight_of(idx m, idx n, decay kind) {
    static std::map<std::tuple<idx, idx, decay>, weight<S>> made;
    auto& entry = made[{m, n, kind}];
    if (entry.w.size() > 0) {
        return entry;
    }
    const idx p = std::min(m, n);
    matrix<float> u(m, p);
    lowrank::fill_normal(u, 1.0F, lowrank::philox(1));
    if (kind == decay::noise) {
        entry.w = (u.leftCols(p) * (1.0F / std::sqrt(static_cast<float>(n)))).template cast<S>();
        if (n > p) {
            matrix<float> all(m, n);
            lowrank::fill_normal(all, 1.0F / std::sqrt(static_cast<float>(n)), lowrank::philox(1));
            entry.w = all.template cast<S>();
        }
        return entry;
    }
    matrix<float> v(n, p);
    lowrank::fill_normal(v, 1.0F, lowrank::philox(2));
    lowrank::orthonormalize(u);
    lowrank::orthonormalize(v);
    entry.values.resize(p);
    for (idx i = 0; i < p; ++i) {
        const double at = static_cast<double>(i);
        entry.values(i) = kind == decay::fast ? std::pow(10.0, -at / 20.0) : std::pow(at + 1.0, -0.5);
    }
    u *= entry.values.template cast<float>().asDiagonal();
    entry.w = (u * v.transpose()).template cast<S>();
    return entry;
}

double seconds(double since) { return lowrank_bench::cpu_seconds() - since; }

/// Time of one W X with 64 columns.
template <class S>
double product_time(const row_matrix<S>& w) {
    matrix<S> x(w.cols(), 64);
    lowrank::fill_normal(x, S(1), lowrank::philox(3));
    double best = 1e300;
    for (int i = 0; i < 5; ++i) {
        const auto start = lowrank_bench::cpu_seconds();
        auto y = lowrank::apply(w, x);
        benchmark::DoNotOptimize(y.data());
        best = std::min(best, seconds(start));
    }
    return best;
}

/// Runs `step` in the benchmark loop and returns its mean time.
template <class F>
double timed(benchmark::State& state, F&& step) {
    const auto start = lowrank_bench::cpu_seconds();
    for (auto _ : state) {
        step();
    }
    return seconds(start) / static_cast<double>(state.iterations());
}

template <class S>
void full(benchmark::State& state) {
    const auto& source = weight_of<S>(state.range(0), state.range(1), decay::slow);
    lowrank::decomposition<S> f;
    const double time = timed(state, [&] { f = lowrank::svd(source.w); });
    state.counters["x_product"] = time / product_time(source.w);
    if (state.range(0) * state.range(1) <= 1024 * 1024) {
        const matrix<S> dense = source.w;
        const auto start = lowrank_bench::cpu_seconds();
        const Eigen::BDCSVD<matrix<S>> theirs(dense, Eigen::ComputeThinU | Eigen::ComputeThinV);
        benchmark::DoNotOptimize(theirs.singularValues().data());
        state.counters["x_eigen"] = seconds(start) / time;
    }
    const auto error = [&](idx i) { return std::abs(static_cast<double>(f.s(i)) - source.values(i)); };
    double worst = 0.0;
    for (idx i = 0; i < f.s.size(); ++i) {
        worst = std::max(worst, error(i));
    }
    state.counters["error"] = worst / source.values(0);
}

template <class S>
void values_only(benchmark::State& state) {
    const auto& source = weight_of<S>(state.range(0), state.range(1), decay::slow);
    const double time = timed(state, [&] {
        auto s = lowrank::singular_values(source.w);
        benchmark::DoNotOptimize(&s);
    });
    state.counters["x_product"] = time / product_time(source.w);
}

/// One decomposition, then the truncation to every fraction of LASER's grid.
void spectrum_grid(benchmark::State& state) {
    const auto& source = weight_of<float>(state.range(0), state.range(1), decay::slow);
    const double time = timed(state, [&] {
        const auto spec = lowrank::svd(source.w);
        for (const double rho : {0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01}) {
            auto part = spec.truncate(static_cast<idx>(rho * static_cast<double>(spec.size())));
            benchmark::DoNotOptimize(part.left.data());
        }
    });
    state.counters["x_product"] = time / product_time(source.w);
}

template <class S>
void randomized(benchmark::State& state) {
    const idx k = state.range(2);
    const auto& source = weight_of<S>(state.range(0), state.range(1), static_cast<decay>(state.range(3)));
    lowrank::decomposition<S> f;
    const double time = timed(state, [&] {
        f = lowrank::randomized_svd(source.w, k, {.power_iterations = static_cast<int>(state.range(4))});
    });
    state.counters["x_product"] = time / product_time(source.w);
    state.counters["error"] = f.error.relative;
    state.counters["excess"] = f.error.relative / source.best(k) - 1.0;
}

/// Depth 0 is the default of the function.
template <class S>
void krylov(benchmark::State& state) {
    const idx k = state.range(2);
    const auto& source = weight_of<S>(state.range(0), state.range(1), static_cast<decay>(state.range(3)));
    lowrank::decomposition<S> f;
    const double time =
        timed(state, [&] { f = lowrank::krylov_svd(source.w, k, {.depth = static_cast<int>(state.range(4))}); });
    state.counters["x_product"] = time / product_time(source.w);
    state.counters["error"] = f.error.relative;
    state.counters["excess"] = f.error.relative / source.best(k) - 1.0;
}

}  // namespace

BENCHMARK(full<float>)
    ->ArgNames({"m", "n"})
    ->Args({512, 512})
    ->Args({1024, 1024})
    ->Args({2048, 2048})
    ->Args({4096, 1024})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(full<double>)->ArgNames({"m", "n"})->Args({512, 512})->Args({1024, 1024})->Unit(benchmark::kMillisecond);
BENCHMARK(values_only<float>)->ArgNames({"m", "n"})->Args({1024, 1024})->Unit(benchmark::kMillisecond);
BENCHMARK(values_only<double>)->ArgNames({"m", "n"})->Args({1024, 1024})->Unit(benchmark::kMillisecond);
BENCHMARK(spectrum_grid)->ArgNames({"m", "n"})->Args({1024, 1024})->Unit(benchmark::kMillisecond);
BENCHMARK(randomized<float>)
    ->ArgNames({"m", "n", "k", "decay", "q"})
    ->ArgsProduct({{2048}, {2048}, {8, 64, 256}, {0, 1, 2}, {2}})
    ->Args({4096, 11008, 64, 2, 2})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(krylov<float>)
    ->ArgNames({"m", "n", "k", "decay", "depth"})
    ->ArgsProduct({{2048}, {2048}, {8, 64, 256}, {0, 1, 2}, {0}})
    ->Args({4096, 11008, 64, 2, 0})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(randomized<double>)
    ->ArgNames({"m", "n", "k", "decay", "q"})
    ->Args({2048, 2048, 64, 1, 2})
    ->Unit(benchmark::kMillisecond);

BENCHMARK_MAIN();

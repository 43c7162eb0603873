// SPDX-License-Identifier: MIT
#ifndef LOWRANK_BENCH_ROOFLINE_HPP
#define LOWRANK_BENCH_ROOFLINE_HPP

/// \file
/// What the machine could do at this moment: bandwidth and multiply-add probes, CPU time, and fair comparisons.
///
///     auto t = compare({[&] { ours(); }, [&] { theirs(); }, [&] { read_probe.run(); }}, 7);   // medians, in seconds
///
/// The candidates run in turn, round after round, so that a machine that slows down slows all of them.

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <functional>
#include <utility>
#include <vector>

#include <lowrank/core/detail/skinny_tiles.hpp>

namespace lowrank_bench {

using lowrank::index;

/// CPU seconds of this thread, where the system tells; of the process elsewhere.
inline double cpu_seconds() {
#ifdef CLOCK_THREAD_CPUTIME_ID
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
#else
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
#endif
}

/// Median seconds of each candidate over `rounds` rounds, after one round to warm up.
inline std::vector<double> compare(const std::vector<std::function<void()>>& candidates, int rounds) {
    std::vector<std::vector<double>> times(candidates.size());
    for (int round = -1; round < rounds; ++round) {
        for (std::size_t i = 0; i < candidates.size(); ++i) {
            const double start = cpu_seconds();
            candidates[i]();
            if (round >= 0) {
                times[i].push_back(cpu_seconds() - start);
            }
        }
    }
    std::vector<double> medians;
    for (auto& t : times) {
        std::nth_element(t.begin(), t.begin() + static_cast<std::ptrdiff_t>(t.size() / 2), t.end());
        medians.push_back(t[t.size() / 2]);
    }
    return medians;
}

/// Adds up `count` scalars at memory speed: what reading them once costs.
template <class S>
S read_once(const S* data, index count) {
    using P = lowrank::detail::packet_of<S>;
    using namespace Eigen::internal;
    constexpr index w = lowrank::detail::lanes<S>;
    P sum[4];
    lowrank::detail::unroll<4>([&](auto i) { sum[i] = pset1<P>(S(0)); });
    for (index at = 0; at + 4 * w <= count; at += 4 * w) {
        lowrank::detail::unroll<4>([&](auto i) { sum[i] = padd(sum[i], ploadu<P>(data + at + i * w)); });
    }
    return predux(padd(padd(sum[0], sum[1]), padd(sum[2], sum[3])));
}

/// 12 chains of multiply-adds in registers, `rounds` times: the peak. Returns the flops done.
template <class S>
double multiply_add(index rounds, S& out) {
    using P = lowrank::detail::packet_of<S>;
    using namespace Eigen::internal;
    volatile S hidden = S(0.999);
    const S value = hidden;
    const P factor = pset1<P>(value);
    P sum[12];
    lowrank::detail::unroll<12>(
        [&](auto i) { sum[i] = pset1<P>(value * S(i + 1)); });  // distinct, or a compiler keeps one
    for (index r = 0; r < rounds; ++r) {
        lowrank::detail::unroll<12>([&](auto i) { sum[i] = pmadd(sum[i], factor, factor); });
    }
    lowrank::detail::unroll<11>([&](auto i) { sum[0] = padd(sum[0], sum[i + 1]); });
    out = predux(sum[0]);
    return 2.0 * 12 * static_cast<double>(lowrank::detail::lanes<S>) * static_cast<double>(rounds);
}

}  // namespace lowrank_bench

#endif  // LOWRANK_BENCH_ROOFLINE_HPP

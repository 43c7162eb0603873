// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_SUPPORT_EXECUTORS_HPP
#define LOWRANK_TESTS_SUPPORT_EXECUTORS_HPP

/// \file
/// Executors that a result must not depend on: none, backwards, and real threads.
///
///     for (const auto& run : lowrank_tests::executors()) { lowrank::workspace ws(run); ... }

#include <atomic>
#include <thread>
#include <vector>

#include <lowrank/core/parallel.hpp>

namespace lowrank_tests {

/// Runs the indices on `count` threads, each taking the next one that is free.
inline lowrank::executor threads(int count) {
    return [count](lowrank::index n, const lowrank::task& body) {
        std::atomic<lowrank::index> next{0};
        const auto work = [&] {
            for (lowrank::index i = next++; i < n; i = next++) {
                body(i);
            }
        };
        std::vector<std::thread> pool;
        for (int t = 1; t < count; ++t) {
            pool.emplace_back(work);
        }
        work();
        for (auto& t : pool) {
            t.join();
        }
    };
}

inline std::vector<lowrank::executor> executors() {
    const lowrank::executor backwards = [](lowrank::index n, const lowrank::task& body) {
        for (lowrank::index i = n; i-- > 0;) {
            body(i);
        }
    };
    return {lowrank::executor(), backwards, threads(2), threads(3)};
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_SUPPORT_EXECUTORS_HPP

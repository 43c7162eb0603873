// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_PARALLEL_HPP
#define LOWRANK_CORE_PARALLEL_HPP

/// \file
/// The executor hook: headers start no threads, the engine's own pool runs their loops.
///
///     lowrank::workspace ws;
///     ws.exec = [&](lowrank::index n, const lowrank::task& body) { pool.parallel_for(n, body); };
///
/// Work is split by problem size, never by the number of threads, so results do not depend on the pool.

#include <functional>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One piece of a loop; called with its number.
using task = std::function<void(index)>;

/// Calls `body(0) .. body(n - 1)`, each once, in any order and on any thread, and returns when all are done.
/// An empty executor runs them here, in order.
using executor = std::function<void(index n, const task& body)>;

/// Runs `body(i)` for i in [0, n) on `exec`, or in order on this thread when `exec` is empty or n is 1.
template <class F>
void parallel_for(const executor& exec, index n, F&& body) {
    if (!exec || n <= 1) {
        for (index i = 0; i < n; ++i) {
            body(i);
        }
        return;
    }
    exec(n, task(std::ref(body)));
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_PARALLEL_HPP

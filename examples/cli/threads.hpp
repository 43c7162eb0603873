// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_THREADS_HPP
#define LOWRANK_EXAMPLES_CLI_THREADS_HPP

/// \file
/// A small thread pool behind the library's executor hook: the library starts no threads, the tool does.
///
///     tool::thread_pool pool(4);
///     lowrank::workspace ws(pool.as_executor());

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <lowrank/core/parallel.hpp>

namespace tool {

/// Runs loops on `threads` threads, the calling one included. A loop started from inside a loop runs where it is.
class thread_pool {
public:
    /// `threads` 0 means as many as the machine has.
    explicit thread_pool(int threads = 0);
    ~thread_pool();
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;

    [[nodiscard]] int size() const noexcept { return static_cast<int>(workers_.size()) + 1; }

    /// Calls body(0) .. body(n - 1); rethrows the first exception after all threads have stopped.
    void run(lowrank::index n, const lowrank::task& body);

    /// The pool must outlive the executor. Empty for a pool of one thread.
    [[nodiscard]] lowrank::executor as_executor();

private:
    void work();
    void take_tasks();

    std::vector<std::thread> workers_;
    std::mutex running_;  // one loop at a time
    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable done_;
    const lowrank::task* body_ = nullptr;
    lowrank::index next_ = 0;
    lowrank::index end_ = 0;
    int busy_ = 0;
    std::uint64_t round_ = 0;
    bool quit_ = false;
    std::exception_ptr error_;
};

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_THREADS_HPP

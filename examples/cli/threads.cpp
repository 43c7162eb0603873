// SPDX-License-Identifier: MIT
#include "threads.hpp"

#include <algorithm>
#include <utility>

namespace tool {
namespace {

thread_local bool inside_loop = false;

}  // namespace

thread_pool::thread_pool(int threads) {
    const int wanted = threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    for (int i = 1; i < wanted; ++i) {
        workers_.emplace_back([this] { work(); });
    }
}

thread_pool::~thread_pool() {
    {
        const std::lock_guard lock(mutex_);
        quit_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) {
        worker.join();
    }
}

lowrank::executor thread_pool::as_executor() {
    if (workers_.empty()) {
        return {};
    }
    return [this](lowrank::index n, const lowrank::task& body) { run(n, body); };
}

void thread_pool::run(lowrank::index n, const lowrank::task& body) {
    if (inside_loop || workers_.empty() || n <= 1) {
        for (lowrank::index i = 0; i < n; ++i) {
            body(i);
        }
        return;
    }
    const std::lock_guard one_at_a_time(running_);
    {
        const std::lock_guard lock(mutex_);
        body_ = &body;
        next_ = 0;
        end_ = n;
        busy_ = static_cast<int>(workers_.size());
        error_ = nullptr;
        ++round_;
    }
    wake_.notify_all();
    take_tasks();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    body_ = nullptr;
    if (error_) {
        std::rethrow_exception(std::exchange(error_, nullptr));
    }
}

void thread_pool::take_tasks() {
    inside_loop = true;
    for (;;) {
        lowrank::index i = 0;
        {
            const std::lock_guard lock(mutex_);
            if (next_ >= end_) {
                break;
            }
            i = next_++;
        }
        try {
            (*body_)(i);
        } catch (...) {
            const std::lock_guard lock(mutex_);
            if (!error_) {
                error_ = std::current_exception();
            }
            next_ = end_;
        }
    }
    inside_loop = false;
}

void thread_pool::work() {
    std::uint64_t seen = 0;
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return quit_ || round_ != seen; });
            if (quit_) {
                return;
            }
            seen = round_;
        }
        take_tasks();
        {
            const std::lock_guard lock(mutex_);
            --busy_;
        }
        done_.notify_one();
    }
}

}  // namespace tool

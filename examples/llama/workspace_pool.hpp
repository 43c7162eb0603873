// SPDX-License-Identifier: MIT
#ifndef LLAMA_WORKSPACE_POOL_HPP
#define LLAMA_WORKSPACE_POOL_HPP

/// \file
/// Workspaces for tasks that run in any thread: as many as run at a time, each keeps its memory for the next task.
///
///     llama::workspace_pool pool;
///     lowrank::parallel_for(run, n, [&](lowrank::index i) { const auto ws = pool.borrow(); work(i, *ws); });

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <lowrank/core/workspace.hpp>

namespace llama {

class workspace_pool {
public:
    workspace_pool() = default;
    workspace_pool(const workspace_pool&) = delete;
    workspace_pool& operator=(const workspace_pool&) = delete;

    /// A workspace that is returned to the pool at the end of its scope.
    class borrowed {
    public:
        borrowed(workspace_pool& owner, std::unique_ptr<lowrank::workspace> ws) : owner_(&owner), ws_(std::move(ws)) {}
        ~borrowed() {
            const std::lock_guard lock(owner_->lock_);
            owner_->free_.push_back(std::move(ws_));
        }
        borrowed(const borrowed&) = delete;
        borrowed& operator=(const borrowed&) = delete;
        lowrank::workspace& operator*() const { return *ws_; }

    private:
        workspace_pool* owner_;
        std::unique_ptr<lowrank::workspace> ws_;
    };

    [[nodiscard]] borrowed borrow() {
        const std::lock_guard lock(lock_);
        std::unique_ptr<lowrank::workspace> ws;
        if (free_.empty()) {
            ws = std::make_unique<lowrank::workspace>();
        } else {
            ws = std::move(free_.back());
            free_.pop_back();
        }
        return borrowed(*this, std::move(ws));
    }

private:
    std::mutex lock_;
    std::vector<std::unique_ptr<lowrank::workspace>> free_;
};

}  // namespace llama

#endif  // LLAMA_WORKSPACE_POOL_HPP

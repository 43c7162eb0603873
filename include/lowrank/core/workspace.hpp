// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_WORKSPACE_HPP
#define LOWRANK_CORE_WORKSPACE_HPP

/// \file
/// Scratch memory and the executor a computation may use, handed down explicitly.
///
///     lowrank::workspace ws;                           // one per thread
///     {
///         lowrank::workspace::frame scope(ws);         // its end gives back what was taken inside
///         auto z = ws.take<float>(rank, tokens);       // uninitialised, 64-byte aligned
///     }
///
/// The first pass through a computation allocates; afterwards the same shapes allocate nothing.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A stack of scratch memory. Not for concurrent use: one per thread.
class workspace {
public:
    workspace() = default;
    explicit workspace(executor run) : exec(std::move(run)) {}
    workspace(const workspace&) = delete;
    workspace& operator=(const workspace&) = delete;

    /// Runs the parallel loops of whatever gets this workspace. Empty: everything on the calling thread.
    executor exec = {};

    /// Gives back at scope exit what was taken since its construction.
    class frame {
    public:
        explicit frame(workspace& owner) noexcept : owner_(owner), block_(owner.block_), used_(owner.used_) {}
        ~frame() {
            owner_.block_ = block_;
            owner_.used_ = used_;
            if (block_ == 0 && used_ == 0) {
                owner_.merge_blocks();
            }
        }
        frame(const frame&) = delete;
        frame& operator=(const frame&) = delete;

    private:
        workspace& owner_;
        std::size_t block_;
        std::size_t used_;
    };

    /// `rows x cols` uninitialised scalars, column-major. Valid until the innermost enclosing frame ends.
    template <real S>
    [[nodiscard]] column_view<S> take(index rows, index cols) {
        detail::expects(rows >= 0 && cols >= 0, "workspace::take: sizes must not be negative");
        constexpr auto most = std::numeric_limits<index>::max() / static_cast<index>(sizeof(S));
        detail::expects(rows == 0 || cols <= most / rows, "workspace::take: rows x cols exceeds the address space");
        return {static_cast<S*>(take_bytes(static_cast<std::size_t>(rows * cols) * sizeof(S))), rows, cols};
    }

    /// `bytes` of 64-byte aligned memory. Valid until the innermost enclosing frame ends.
    [[nodiscard]] void* take_bytes(std::size_t bytes) {
        detail::expects(bytes <= std::numeric_limits<std::size_t>::max() / 2,
                        "workspace::take_bytes: exceeds the address space");
        bytes = (bytes + alignment - 1) / alignment * alignment;
        while (block_ < blocks_.size() && blocks_[block_].size - used_ < bytes) {
            ++block_;
            used_ = 0;
        }
        if (block_ == blocks_.size()) {
            add_block(std::max({bytes, total_bytes(), std::size_t{1} << 16}));
        }
        void* place = blocks_[block_].memory.get() + used_;
        used_ += bytes;
        return place;
    }

    /// Bytes held, used or not.
    [[nodiscard]] std::size_t total_bytes() const noexcept {
        std::size_t sum = 0;
        for (const auto& b : blocks_) {
            sum += b.size;
        }
        return sum;
    }

private:
    static constexpr std::size_t alignment = 64;

    struct aligned_delete {
        void operator()(std::byte* p) const noexcept { ::operator delete[](p, std::align_val_t{alignment}); }
    };
    using block_pointer = std::unique_ptr<std::byte[], aligned_delete>;
    struct memory_block {
        block_pointer memory;
        std::size_t size = 0;
    };

    void add_block(std::size_t size) {
        blocks_.reserve(blocks_.size() + 1);
        blocks_.push_back(
            {block_pointer(static_cast<std::byte*>(::operator new[](size, std::align_val_t{alignment}))), size});
    }

    /// Replaces all blocks by one that is large enough for the next pass. Called when nothing is in use; where
    /// memory is too short for one block, the next pass allocates again and reports it.
    void merge_blocks() noexcept {
        if (blocks_.size() > 1) {
            const std::size_t size = total_bytes();
            blocks_.clear();
            block_pointer memory(
                static_cast<std::byte*>(::operator new[](size, std::align_val_t{alignment}, std::nothrow)));
            if (memory) {
                blocks_.push_back({std::move(memory), size});  // the vector has kept its capacity
            }
        }
    }

    std::vector<memory_block> blocks_ = {};
    std::size_t block_ = 0;  ///< The block in use,
    std::size_t used_ = 0;   ///< and how much of it is taken.
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_WORKSPACE_HPP

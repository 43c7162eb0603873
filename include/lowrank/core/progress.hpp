// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_PROGRESS_HPP
#define LOWRANK_CORE_PROGRESS_HPP

/// \file
/// Progress of anything that takes long, with cancellation.
///
///     lowrank::search_options how{.validation = {0, 200}};
///     how.on_progress = [](const lowrank::progress& p) { log(p.fraction()); return !stop_requested; };
///
/// Long-running functions call it between steps; a `false` makes them return `errc::cancelled` with their arguments
/// as they were.

#include <functional>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How far a long-running function is. `done` and `total` count its own unit of work; `what` names the current piece.
struct progress {
    index done = 0;
    index total = 0;
    std::string_view what = {};

    [[nodiscard]] double fraction() const noexcept {
        return total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0.0;
    }
};

/// Returns false to cancel. An empty callback never cancels.
using progress_callback = std::function<bool(const progress&)>;

/// True if work may go on.
[[nodiscard]] inline bool report(const progress_callback& callback, const progress& at) {
    return !callback || callback(at);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_PROGRESS_HPP

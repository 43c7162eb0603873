// SPDX-License-Identifier: MIT
#include "console.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#ifdef _WIN32
#include <io.h>
#define LOWRANK_TOOL_ISATTY _isatty
#define LOWRANK_TOOL_STDERR 2
#else
#include <unistd.h>
#define LOWRANK_TOOL_ISATTY isatty
#define LOWRANK_TOOL_STDERR STDERR_FILENO
#endif

namespace tool {
namespace {

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the signal handler needs it");

extern "C" void ask_to_stop(int /*signal*/) { stop_asked.store(true, std::memory_order_relaxed); }

std::string duration(double seconds) {
    const auto s = static_cast<long>(seconds + 0.5);
    if (s < 3600) {
        return format("%ld:%02ld", s / 60, s % 60);
    }
    return format("%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace

void fail(std::string sentence, lowrank::errc code) { throw lowrank::failure({code, std::move(sentence)}); }

void install_signal_handlers() {
    std::signal(SIGINT, ask_to_stop);
    std::signal(SIGTERM, ask_to_stop);
#ifdef SIGHUP
    std::signal(SIGHUP, ask_to_stop);
#endif
#ifdef SIGPIPE
    std::signal(SIGPIPE, SIG_IGN);
#endif
#ifdef SIGXFSZ
    std::signal(SIGXFSZ, SIG_IGN);
#endif
}

bool interrupted() noexcept { return stop_asked.load(std::memory_order_relaxed); }

void stop_if_interrupted() {
    if (interrupted()) {
        fail("interrupted, nothing was written", lowrank::errc::cancelled);
    }
}

void say(std::string_view text) { std::fprintf(stderr, "lowrank: %.*s\n", static_cast<int>(text.size()), text.data()); }

void print(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
        fail(format("cannot write to standard output: %s", std::strerror(errno)), lowrank::errc::io_failure);
    }
}

void print_json(const json& object) { print(object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n"); }

progress_bar::progress_bar(std::string label)
    : label_(std::move(label)),
      start_(clock::now()),
      last_(start_),
      terminal_(LOWRANK_TOOL_ISATTY(LOWRANK_TOOL_STDERR) != 0) {}

progress_bar::~progress_bar() {
    if (terminal_ && drawn_) {
        std::fputs("\r\x1b[K", stderr);
        std::fflush(stderr);
    }
}

bool progress_bar::update(const lowrank::progress& at) {
    const auto now = clock::now();
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    const double since = std::chrono::duration<double>(now - last_).count();
    const bool due = terminal_ ? (drawn_ ? since > 0.1 : elapsed > 1.0) : since > (drawn_ ? 5.0 : 1.0);
    if (due && at.total > 0) {
        const double done = std::clamp(at.fraction(), 0.0, 1.0);
        const std::string left = done > 0.0 ? duration(elapsed * (1.0 - done) / done) + " left" : "starting";
        const std::string what(at.what);
        if (terminal_) {
            constexpr int cells = 24;
            const auto full = static_cast<std::size_t>(done * cells);
            std::fprintf(stderr, "\r\x1b[K%s [%s%s] %3.0f %%  %s  %s", label_.c_str(), std::string(full, '#').c_str(),
                         std::string(cells - full, '.').c_str(), 100.0 * done, left.c_str(), what.c_str());
            std::fflush(stderr);
        } else {
            std::fprintf(stderr, "%s: %.0f %% (%lld of %lld), %s%s%s\n", label_.c_str(), 100.0 * done,
                         static_cast<long long>(at.done), static_cast<long long>(at.total), left.c_str(),
                         what.empty() ? "" : ", ", what.c_str());
        }
        drawn_ = true;
        last_ = now;
    }
    return !interrupted();
}

}  // namespace tool

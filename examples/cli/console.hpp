// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_CONSOLE_HPP
#define LOWRANK_EXAMPLES_CLI_CONSOLE_HPP

/// \file
/// How the tool talks: results on stdout, everything else on stderr, progress with time left, Ctrl-C as a flag.
///
///     tool::progress_bar bar("searching");
///     auto found = lowrank::exhaustive_search(..., {.on_progress = bar.callback()});
///     tool::print_json(report);

#include <chrono>
#include <concepts>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>

#include "report/text.hpp"

namespace tool {

using json = nlohmann::ordered_json;
using report::format;
using report::grouped;
using report::in_quotes;
using report::table;

/// What the process returns.
enum exit_code : int {
    exit_ok = 0,
    exit_failed = 1,        ///< The work could not be done; stderr says why in one sentence.
    exit_usage = 2,         ///< The command line was wrong.
    exit_interrupted = 130  ///< Ctrl-C or a termination signal; nothing half-written is left.
};

/// The command line was wrong in a way the argument parser cannot see.
class usage_error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Ends the command with a sentence on stderr and `exit_failed`.
[[noreturn]] void fail(std::string sentence, lowrank::errc code = lowrank::errc::invalid_format);

/// The value of `r`, or `fail` with its sentence.
template <std::derived_from<lowrank::fallible> R>
[[nodiscard]] auto take(R r) {
    return std::move(r).value();
}

/// The same; the sentence names what it is about.
template <std::derived_from<lowrank::fallible> R>
[[nodiscard]] auto take_named(const std::string& name, R r) {
    if (!r) {
        fail(r.why.message.find(name) == std::string::npos ? name + ": " + r.why.message : r.why.message, r.why.code);
    }
    return std::move(r).value();
}

/// Makes Ctrl-C, SIGTERM and SIGHUP set a flag, and broken pipes and file-size limits come back as errors.
void install_signal_handlers();

/// True once a stop was asked for.
[[nodiscard]] bool interrupted() noexcept;

/// Ends the command with `exit_interrupted` if a stop was asked for. Call it between the steps of anything long.
void stop_if_interrupted();

/// One line on stderr: "lowrank: text".
void say(std::string_view text);

/// Prints text to stdout; a full disk or a closed pipe is a failure like any other.
void print(std::string_view text);

/// Prints one JSON object and a newline to stdout.
void print_json(const json& object);

/// Progress on stderr of anything that takes more than a second: a bar with the time left on a terminal, a plain line
/// now and then elsewhere. Erases its bar when it ends.
class progress_bar {
public:
    explicit progress_bar(std::string label);
    ~progress_bar();
    progress_bar(const progress_bar&) = delete;
    progress_bar& operator=(const progress_bar&) = delete;

    /// Shows `at`. False once a stop was asked for.
    bool update(const lowrank::progress& at);

    /// For the options of long-running library functions. The bar must outlive the callback.
    [[nodiscard]] lowrank::progress_callback callback() {
        return [this](const lowrank::progress& at) { return update(at); };
    }

private:
    using clock = std::chrono::steady_clock;
    std::string label_;
    clock::time_point start_;
    clock::time_point last_;
    bool terminal_;
    bool drawn_ = false;
};

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_CONSOLE_HPP

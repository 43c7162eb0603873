// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_DEMO_HPP
#define LOWRANK_EXAMPLES_CLI_DEMO_HPP

/// \file
/// `lowrank demo`: the library's main job end to end, on data made from a seed.
///
///     return tool::run_demo({.output = "lowrank-demo", .seed = 0});
///
/// Trains a small transformer on noisy recall (demo_task.hpp), finds the truncation that helps it, adapts the result to
/// a shifted task with LoRA, stores and reloads both, merges, compares, unmerges, and writes a report.

#include <cstdint>
#include <filesystem>

namespace tool {

struct demo_options {
    std::filesystem::path output = "lowrank-demo";  ///< Gets model/, adapter/ and report.html.
    std::uint64_t seed = 0;
    bool json = false;  ///< One JSON object on stdout instead of sentences.
    int threads = 0;    ///< 0: as many as the machine has. Results do not depend on it.
};

/// Runs the demo and returns the process's exit code. Throws what went wrong with one sentence; then, and on Ctrl-C,
/// nothing new is in the output folder.
int run_demo(const demo_options& options);

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_DEMO_HPP

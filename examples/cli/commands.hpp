// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_COMMANDS_HPP
#define LOWRANK_EXAMPLES_CLI_COMMANDS_HPP

/// \file
/// The subcommands. Each function adds one to the tool; the work runs when the command line names it.

#include <CLI/CLI.hpp>

namespace tool {

void add_inspect(CLI::App& app);
void add_check(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_truncate(CLI::App& app);
void add_laser(CLI::App& app);
void add_finetune(CLI::App& app);
void add_merge(CLI::App& app);
void add_diff(CLI::App& app);
void add_extract(CLI::App& app);
void add_resize(CLI::App& app);
void add_combine(CLI::App& app);
void add_convert(CLI::App& app);
void add_dequantize(CLI::App& app);
void add_demo(CLI::App& app);

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_COMMANDS_HPP

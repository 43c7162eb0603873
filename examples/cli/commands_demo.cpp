// SPDX-License-Identifier: MIT
/// \file
/// `lowrank demo`: the command line of demo.hpp.

#include <memory>

#include "commands.hpp"
#include "demo.hpp"
#include "options.hpp"

namespace tool {

void add_demo(CLI::App& app) {
    auto options = std::make_shared<demo_options>();
    auto common = std::make_shared<common_options>();
    auto* command = app.add_subcommand("demo", "Show the whole job in two minutes, on data made from a seed");
    command->add_option("--output", options->output, "Folder for the model, the adapter and report.html")
        ->type_name("DIR")
        ->capture_default_str();
    command->add_option("--seed", options->seed, "Of the data, the model and the training")->capture_default_str();
    add_common(*command, *common);
    command->footer(
        "Trains a small transformer, finds the truncation that helps it, adapts it with LoRA, merges and unmerges,\n"
        "and writes one page to look at.\n"
        "Example:\n"
        "  lowrank demo --output lowrank-demo");
    command->callback([options, common] {
        options->json = common->json;
        options->threads = common->threads;
        if (const int code = run_demo(*options); code != 0) {
            throw CLI::RuntimeError(code);
        }
    });
}

}  // namespace tool

// SPDX-License-Identifier: MIT
/// \file
/// `lowrank`: look at, measure, reduce, adapt and merge the weights of a model on disk.

#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include <CLI/CLI.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>

#include "commands.hpp"
#include "console.hpp"

namespace {

/// A message of the argument parser as one line.
std::string one_line(std::string text) {
    for (auto at = text.find('\n'); at != std::string::npos; at = text.find('\n', at)) {
        text.replace(at, 1, " ");
    }
    return text;
}

int run(int argc, char** argv) {
    CLI::App app(
        "lowrank: low-rank work on the weights of a language model on disk.\n"
        "A model is a folder with config.json and model.safetensors (or shards); an adapter is a PEFT folder.",
        "lowrank");
    app.set_version_flag("--version", "lowrank " + std::to_string(LOWRANK_VERSION_MAJOR) + "." +
                                          std::to_string(LOWRANK_VERSION_MINOR) + "." +
                                          std::to_string(LOWRANK_VERSION_PATCH));
    app.require_subcommand(1);
    app.footer(
        "Exit codes: 0 done, 1 the work failed (one sentence on stderr), 2 wrong usage, 130 interrupted.\n"
        "Results go to stdout, messages and progress to stderr. 'lowrank COMMAND --help' shows an example.");
    tool::add_inspect(app);
    tool::add_check(app);
    tool::add_eval(app);
    tool::add_generate(app);
    tool::add_truncate(app);
    tool::add_laser(app);
    tool::add_finetune(app);
    tool::add_merge(app);
    tool::add_diff(app);
    tool::add_extract(app);
    tool::add_resize(app);
    tool::add_combine(app);
    tool::add_convert(app);
    tool::add_dequantize(app);
    tool::add_demo(app);

    const auto wrong_usage = [&app](const std::string& why) {
        std::string help = "lowrank --help";
        for (const auto* command : app.get_subcommands()) {
            help = "lowrank " + command->get_name() + " --help";
        }
        tool::say(one_line(why) + " (see '" + help + "')");
        return tool::exit_usage;
    };
    try {
        app.parse(argc, argv);
        return tool::exit_ok;
    } catch (const CLI::Success& wanted) {  // --help, --version
        return app.exit(wanted) == 0 ? tool::exit_ok : tool::exit_usage;
    } catch (const CLI::RuntimeError& ended) {  // a command with its own exit code
        return ended.get_exit_code();
    } catch (const CLI::ParseError& wrong) {
        return wrong_usage(wrong.what());
    } catch (const tool::usage_error& wrong) {
        return wrong_usage(wrong.what());
    }
}

}  // namespace

int main(int argc, char** argv) {
    tool::install_signal_handlers();
    std::string why;
    try {
        return run(argc, argv);
    } catch (const std::bad_alloc&) {
        why = "out of memory, nothing was written";
    } catch (const std::exception& error) {
        why = one_line(error.what());
    }
    if (tool::interrupted()) {
        tool::say("interrupted, nothing was written");
        return tool::exit_interrupted;
    }
    tool::say(why);
    return tool::exit_failed;
}

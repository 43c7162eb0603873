// SPDX-License-Identifier: MIT
// Help, version and wrong command lines: what a new user sees first.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "process.hpp"

using namespace lowrank_tests;

namespace {

const std::vector<std::string> commands = {"inspect", "check", "eval",    "generate", "truncate", "laser",   "finetune",
                                           "merge",   "diff",  "extract", "resize",   "combine",  "convert", "demo"};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("help names every command, its exit codes, and goes to stdout") {
    const auto help = run_tool({"--help"});
    CHECK(help.exit_code == 0);
    CHECK(help.err.empty());
    for (const auto& command : commands) {
        CAPTURE(command);
        CHECK(contains(help.out, command));
    }
    CHECK(contains(help.out, "130"));
}

TEST_CASE("every command has help with an example of itself") {
    for (const auto& command : commands) {
        CAPTURE(command);
        const auto help = run_tool({command, "--help"});
        CHECK(help.exit_code == 0);
        CHECK(help.err.empty());
        CHECK(contains(help.out, "lowrank " + command + " "));
        CHECK(contains(help.out, "Example"));
        CHECK(contains(help.out, "--json"));
    }
}

TEST_CASE("the version is one line") {
    const auto version = run_tool({"--version"});
    CHECK(version.exit_code == 0);
    CHECK(version.out.rfind("lowrank ", 0) == 0);
    CHECK(version.out.find('\n') == version.out.size() - 1);
}

TEST_CASE("a wrong command line is one sentence and exit code 2") {
    const std::vector<std::vector<std::string>> wrong = {
        {},
        {"frobnicate"},
        {"inspect"},
        {"inspect", "--frobnicate", "x"},
        {"eval", "model"},
        {"eval", "model", "--ids", "a", "--text", "b"},
        {"eval", "model", "--ids", "a", "--window", "many"},
        {"eval", "model", "--ids", "a", "--threads", "-3"},
        {"generate", "model"},
        {"truncate", "model", "--output", "out", "--matrix", "*"},
        {"truncate", "model", "--output", "out", "--matrix", "*", "--rank", "3", "--rho", "0.5"},
        {"truncate", "model", "--output", "out", "--matrix", "*", "--rho", "1.5"},
        {"truncate", "model", "--output", "out", "--matrix", "*", "--rule", "astrology"},
        {"laser", "model", "--text", "t", "--rho", "0.5,oops"},
        {"laser", "model", "--text", "t", "--validation", "1"},
        {"laser", "model", "--text", "t", "--method", "guessing"},
        {"laser", "model", "--text", "t", "--groups", "0"},
        {"finetune", "model", "--text", "t"},
        {"finetune", "model", "--text", "t", "--output", "out", "--rank", "0"},
        {"finetune", "model", "--text", "t", "--output", "out", "--lr", "-1"},
        {"merge", "model", "--output", "out"},
        {"merge", "model", "--output", "out", "--adapter", "nowhere:strong"},
        {"diff", "model"},
        {"extract", "a", "b", "--output", "out", "--rule", "energy", "--value", "1.5"},
        {"extract", "a", "b", "--output", "out", "--rule", "energy", "--value", "0.5", "--fast"},
        {"resize", "a", "--output", "out", "--value", "2.5"},
        {"resize", "a", "--output", "out", "--rule", "magic"},
        {"combine", "a", "b", "--output", "out", "--method", "magic"},
        {"combine", "a", "b", "--output", "out", "--weights", "1"},
        {"convert", "a", "--output", "out", "--to", "pickle"},
    };
    for (const auto& arguments : wrong) {
        std::string line;
        for (const auto& a : arguments) {
            line += a + " ";
        }
        CAPTURE(line);
        const auto r = run_tool(arguments);
        CAPTURE(r.err);
        CHECK(r.exit_code == 2);
        CHECK(r.out.empty());
        CHECK(one_sentence(r.err));
        CHECK(contains(r.err, "--help"));
    }
}

TEST_CASE("a full standard output is an error, not silence") {
    if (!std::filesystem::exists("/dev/full")) {
        MESSAGE("no /dev/full here: skipped");
        return;
    }
    temporary_folder folder;
    write_text(folder / "empty.safetensors", std::string("\x02\0\0\0\0\0\0\0{}", 10));
    const auto path = (folder / "empty.safetensors").string();
    CHECK(run_tool({"inspect", path}).exit_code == 0);
    process_options to_full;
    to_full.stdout_to = "/dev/full";
    const auto r = run_tool({"inspect", path, "--json"}, to_full);
    CAPTURE(r.err);
    CHECK(r.exit_code == 1);
    CHECK(one_sentence(r.err));
}

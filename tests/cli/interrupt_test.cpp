// SPDX-License-Identifier: MIT
// Ctrl-C and termination signals: the tool stops soon, says so, and leaves nothing behind.
#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <vector>

#include "process.hpp"
#include "tiny_checkpoint.hpp"

using namespace lowrank_tests;

namespace {

/// Sends `signal` once the command shows its progress, which it does after a second.
void interrupt(const std::vector<std::string>& arguments, int signal, const std::string& label) {
    process_options options;
    options.signal = signal;
    options.signal_when = [label](const std::string& err) { return err.find(label + ": ") != std::string::npos; };
    options.timeout_s = 60;
    const auto r = run_tool(arguments, options);
    CAPTURE(r.err);
    CHECK(r.exit_code == 130);
    CHECK(r.out.empty());
    CHECK(r.err.find("left") != std::string::npos);  // time left
    const auto last = r.err.rfind("lowrank: ");
    REQUIRE(last != std::string::npos);
    CHECK(r.err.substr(last) == "lowrank: interrupted, nothing was written\n");
}

}  // namespace

TEST_CASE("an interrupted training or search leaves nothing") {
    temporary_folder folder;
    write_tiny_checkpoint(folder / "model");
    std::string words;
    for (int i = 0; i < 4000; ++i) {
        words += "the cat sat, the dog ran. ";
    }
    write_text(folder / "text.txt", words);
    const auto before = listing(folder.path());
    const auto model = (folder / "model").string();
    const auto text = (folder / "text.txt").string();
    const auto out = (folder / "out").string();

    interrupt(
        {"finetune", model, "--text", text, "--output", out, "--steps", "1000000", "--rank", "2", "--window", "64"},
        SIGINT, "training");
    CHECK(listing(folder.path()) == before);
    interrupt({"laser", model, "--text", text, "--output", out, "--edit-adapter", (folder / "edit").string(),
               "--window", "64", "--validation", "0.9"},
              SIGTERM, "searching");
    CHECK(listing(folder.path()) == before);
}

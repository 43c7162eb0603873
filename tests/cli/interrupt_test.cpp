// SPDX-License-Identifier: MIT
// Ctrl-C and termination signals: the tool stops soon, says so, and leaves nothing behind. With --resume they keep
// what is finished.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft.hpp>

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

TEST_CASE("a merge that stopped goes on with --resume") {
    temporary_folder folder;
    std::filesystem::create_directory(folder / "base");
    const lowrank::row_matrix<float> small = lowrank::row_matrix<float>::Ones(16, 16);
    const lowrank::row_matrix<float> large = lowrank::row_matrix<float>::Identity(256, 256);
    REQUIRE(
        lowrank::write_safetensors(folder / "base" / "model-1.safetensors", {lowrank::tensor_of("a.weight", small)}));
    REQUIRE(
        lowrank::write_safetensors(folder / "base" / "model-2.safetensors", {lowrank::tensor_of("b.weight", large)}));
    write_text(folder / "base" / "model.safetensors.index.json",
               R"({"weight_map":{"a.weight":"model-1.safetensors","b.weight":"model-2.safetensors"}})");
    write_text(folder / "base" / "config.json", "{}");
    lowrank::peft_adapter adapter;
    adapter.modules["a"] = lowrank::make_lora<float>(16, 16, {.r = 1});
    adapter.modules["b"] = lowrank::make_lora<float>(256, 256, {.r = 1});
    lora_of(adapter.modules["a"]).lora_B.setOnes();
    lora_of(adapter.modules["b"]).lora_B.setOnes();
    adapter.config = lowrank::peft_config_for(adapter.modules);
    REQUIRE(lowrank::write_peft(folder / "adapter", adapter));

    const auto base = (folder / "base").string();
    const std::vector<std::string> merge = {"merge", base, "--adapter", (folder / "adapter").string()};
    {
        const auto run = [&](const char* out, const char* option, const process_options& how = {}) {
            auto arguments = merge;
            arguments.insert(arguments.end(), {"--output", (folder / out).string(), "--json", option});
            return run_tool(arguments, how);
        };
        const auto whole = run("whole", "--force");
        REQUIRE_MESSAGE(whole.exit_code == 0, whole.err);
        const auto full = run("out", "--resume", {.file_size_limit = 16 << 10});  // as on a full disk
        CHECK(full.exit_code != 0);
        const auto left = listing(folder.path());
        CHECK(std::count(left.begin(), left.end(), ".out.partial-0") == 1);
        CHECK(std::count(left.begin(), left.end(), "out") == 0);
        const auto again = run("out", "--resume");
        REQUIRE_MESSAGE(again.exit_code == 0, again.err);
        CHECK(listing(folder / "out") == listing(folder / "whole"));
        for (const char* name : {"model-1.safetensors", "model-2.safetensors"}) {
            CHECK(read_text(folder / "out" / name) == read_text(folder / "whole" / name));
        }
        const auto report = nlohmann::json::parse(again.out, nullptr, false);
        CHECK(report.at("matrices") == nlohmann::json::parse(whole.out, nullptr, false).at("matrices"));
        CHECK(report.at("resumed_files") == 1);
        const auto clean = listing(folder.path());
        CHECK(std::count(clean.begin(), clean.end(), ".out.partial-0") == 0);
        std::filesystem::remove_all(folder / "out");
    }

    {
        const auto run = [&](const char* out, const char* option, const process_options& how = {}) {
            return run_tool({"truncate", base, "--matrix", "weight", "--rank", "1", "--output", (folder / out).string(),
                             "--json", option},
                            how);
        };
        const auto whole = run("whole", "--force");
        REQUIRE_MESSAGE(whole.exit_code == 0, whole.err);
        CHECK(run("cut", "--resume", {.file_size_limit = 16 << 10}).exit_code == 1);
        const auto again = run("cut", "--resume");
        REQUIRE_MESSAGE(again.exit_code == 0, again.err);
        CHECK(listing(folder / "cut") == listing(folder / "whole"));
        CHECK(read_text(folder / "cut" / "model-2.safetensors") == read_text(folder / "whole" / "model-2.safetensors"));
        const auto report = nlohmann::json::parse(again.out, nullptr, false);
        CHECK(report.at("matrices") == nlohmann::json::parse(whole.out, nullptr, false).at("matrices"));
        CHECK(report.at("resumed_files") == 1);
    }

    write_text(folder / "secret", "of this machine");
    std::filesystem::create_symlink(folder / "secret", folder / "base" / "LICENSE");
    auto arguments = merge;
    arguments.insert(arguments.end(), {"--output", (folder / "linked").string()});
    const auto refused = run_tool(arguments);
    CHECK(refused.exit_code == 1);
    CHECK(refused.err.find("leads out of its folder") != std::string::npos);
}

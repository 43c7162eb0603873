// SPDX-License-Identifier: MIT
// Merging, comparing, extracting, resizing and converting, on the reference model and its adapters.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "process.hpp"
#include "support/shared.hpp"

using namespace lowrank_tests;

namespace {

nlohmann::json object_of(std::vector<std::string> arguments) {
    arguments.emplace_back("--json");
    const auto r = run_tool(arguments);
    CAPTURE(r.err);
    REQUIRE(r.exit_code == 0);
    auto object = nlohmann::json::parse(r.out, nullptr, false);
    REQUIRE(object.is_object());
    CHECK(object.at("command") == arguments.front());
    return object;
}

struct real_files {
    explicit real_files(const std::filesystem::path& shared)
        : model((shared / "models/stories260K").string()),
          ids((shared / "models/stories260K/golden/shakespeare_eval_ids.json").string()),
          lora((shared / "adapters/stories260K/shakespeare-lora-r4").string()),
          dora((shared / "adapters/stories260K/shakespeare-dora-r4").string()) {}
    std::string model, ids, lora, dora;
};

}  // namespace

TEST_CASE("a DoRA adapter merges into the model its training measured") {
    LOWRANK_NEEDS_SHARED(shared);
    const real_files real(shared);
    temporary_folder folder;
    const auto merged = (folder / "merged").string();
    const auto report = object_of({"merge", real.model, "--adapter", real.dora, "--output", merged, "--check"});
    CHECK(report.at("unmerge_restores_bits") == true);
    CHECK(report.at("matrices").size() == 25);
    const auto after = object_of({"eval", merged, "--ids", real.ids});
    CHECK(std::abs(after.at("mean_nll").get<double>() - 2.9821257) < 1e-4);
}

TEST_CASE("diff sees what merge did, extract finds it, resize shrinks it") {
    LOWRANK_NEEDS_SHARED(shared);
    const real_files real(shared);
    temporary_folder folder;
    const auto merged = (folder / "merged").string();
    object_of({"merge", real.model, "--adapter", real.lora, "--output", merged});
    CHECK(object_of({"diff", real.model, real.model}).at("differing") == 0);
    const auto diff = object_of({"diff", real.model, merged});
    CHECK(diff.at("tensors") == 47);
    CHECK(diff.at("differing") == 35);
    CHECK(diff.at("differences").size() == 35);
    CHECK(diff.at("differences")[0].at("difference") == "values");
    CHECK(run_tool({"diff", real.model, merged}).out.find("35 of 47 tensors differ") != std::string::npos);

    const auto found = (folder / "found").string();
    const auto extracted = object_of({"extract", real.model, merged, "--value", "4", "--output", found});
    CHECK(extracted.at("weights").size() == 35);
    CHECK(extracted.at("weights")[0].at("relative_error") < 1e-4);
    const auto again = object_of({"eval", real.model, "--ids", real.ids, "--adapter", found});
    CHECK(std::abs(again.at("mean_nll").get<double>() - 2.92356) < 1e-3);

    const auto small = (folder / "small").string();
    const auto resized = object_of({"resize", found, "--value", "2", "--output", small});
    CHECK(resized.at("modules").size() == 35);
    CHECK(resized.at("modules")[0].at("rank") == 2);
    CHECK(run_tool({"resize", real.dora, "--output", (folder / "no").string()}).err.find("DoRA") != std::string::npos);
}

TEST_CASE("adapters go to every tool and come back") {
    LOWRANK_NEEDS_SHARED(shared);
    const real_files real(shared);
    temporary_folder folder;
    for (const std::string format : {"gguf", "kohya", "mlx"}) {
        const auto there = (folder / format).string();
        const auto back = (folder / (format + "-back")).string();
        const auto out = object_of({"convert", real.lora, "--to", format, "--model", real.model, "--output", there});
        CHECK(out.at("from") == "peft");
        CHECK(out.at("modules") == 35);
        CHECK(out.at("unmapped").empty());
        const auto home = object_of({"convert", there, "--to", "peft", "--model", real.model, "--output", back});
        CHECK(home.at("from") == format);
        CHECK(home.at("renamed").size() == (format == "kohya" ? 35U : 0U));
        CHECK(read_text(std::filesystem::path(back) / "adapter_model.safetensors") ==
              read_text(std::filesystem::path(real.lora) / "adapter_model.safetensors"));
    }
    const auto gguf = (folder / "dora.gguf").string();
    const auto cut = object_of({"convert", real.dora, "--to", "gguf", "--model", real.model, "--output", gguf});
    CHECK(cut.at("relative_errors").size() == 25);
    const auto refused = run_tool({"convert", real.lora, "--to", "gguf", "--output", (folder / "x.gguf").string()});
    CHECK(refused.exit_code == 1);
    CHECK(refused.err.find("base model") != std::string::npos);
    CHECK(run_tool({"convert", real.lora, "--output", (folder / "x").string()}).exit_code == 2);
    CHECK(run_tool({"convert", real.lora, "--to", "kohya", "--output", gguf}).err.find("exists already") !=
          std::string::npos);
}

TEST_CASE("the model goes to GGUF and back without a changed byte") {
    LOWRANK_NEEDS_SHARED(shared);
    const real_files real(shared);
    temporary_folder folder;
    const auto gguf = (folder / "model.gguf").string();
    const auto back = (folder / "back").string();
    CHECK(object_of({"convert", real.model, "--output", gguf}).at("tokenizer") == true);
    CHECK(object_of({"convert", gguf, "--output", back}).at("copied") == 47);
    for (const char* name : {"model.safetensors", "config.json"}) {
        CHECK(read_text(std::filesystem::path(back) / name) == read_text(std::filesystem::path(real.model) / name));
    }
    const auto small = (shared / "models/gguf/stories260K-Q8_0.gguf").string();
    CHECK_FALSE(object_of({"convert", small, "--output", (folder / "q8").string()}).at("decoded").empty());
    CHECK(object_of({"eval", (folder / "q8").string(), "--ids", real.ids}).at("mean_nll") < 5.1);
}

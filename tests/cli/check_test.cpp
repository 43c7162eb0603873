// SPDX-License-Identifier: MIT
// `lowrank check`, and `lowrank inspect` of GGUF files.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft.hpp>

#include "process.hpp"
#include "tiny_checkpoint.hpp"

using namespace lowrank_tests;

namespace {

lowrank::lora_adapter<float> trained_lora(lowrank::index out, lowrank::index in, std::uint64_t seed) {
    auto a = lowrank::make_lora<float>(out, in, {.r = 2, .lora_alpha = 4, .seed = seed});
    a.lora_B.setConstant(0.125F);  // of rank 1
    return a;
}

/// A model, an adapter of two of its modules, and one that has a third module besides that the model lacks.
struct checked_folder {
    checked_folder() {
        write_tiny_checkpoint(folder / "model");
        lowrank::peft_adapter made;
        made.modules["model.layers.0.self_attn.q_proj"] = trained_lora(tiny_hidden, tiny_hidden, 1);
        made.modules["model.layers.1.mlp.up_proj"] = trained_lora(tiny_inner, tiny_hidden, 2);
        made.config = lowrank::peft_config_for(made.modules);
        lowrank::throw_if_failed(lowrank::write_peft(folder / "adapter", made));
        made.modules["model.layers.7.mlp.up_proj"] = trained_lora(tiny_inner, tiny_hidden, 3);
        made.config = lowrank::peft_config_for(made.modules);
        lowrank::throw_if_failed(lowrank::write_peft(folder / "larger", made));
    }
    [[nodiscard]] std::string path(const char* name) const { return (folder / name).string(); }
    temporary_folder folder;
};

nlohmann::json object_in(const process_result& r) {
    CAPTURE(r.err);
    auto object = nlohmann::json::parse(r.out, nullptr, false);
    REQUIRE(object.is_object());
    return object;
}

}  // namespace

TEST_CASE("check says where modules go, what they change and which programs can hold them") {
    const checked_folder at;
    const auto r = run_tool({"check", at.path("model"), at.path("adapter"), "--json"});
    CHECK(r.exit_code == 0);
    const auto report = object_in(r);
    CHECK(report.at("maps") == true);
    CHECK(report.at("mapped") == 2);
    CHECK(report.at("merges") == nullptr);
    CHECK(report.at("modules").size() == 2);
    const auto& q = report.at("modules").at(0);
    CHECK(q.at("module") == "model.layers.0.self_attn.q_proj");
    CHECK(q.at("rank") == 2);
    CHECK(q.at("rank_used") == 1);
    CHECK(q.at("problem") == nullptr);
    CHECK(q.at("tensors").at(0).at("relative_change").get<double>() > 0.01);
    CHECK(report.at("programs").size() >= 5);
    for (const auto& program : report.at("programs")) {
        CAPTURE(program.dump());
        CHECK(program.at("held") == 2);
    }
    const auto text = run_tool({"check", at.path("model"), at.path("adapter")});
    CHECK(text.exit_code == 0);
    CHECK(text.out.find("2 of 2 modules have a place in the model") != std::string::npos);
    CHECK(text.out.find("llama.cpp: 2 of 2 modules") != std::string::npos);
}

TEST_CASE("check fails for a module without a place, after its report") {
    const checked_folder at;
    const auto r = run_tool({"check", at.path("model"), at.path("larger"), "--json"});
    CHECK(r.exit_code == 1);
    CHECK(one_sentence(r.err));
    const auto report = object_in(r);
    CHECK(report.at("maps") == false);
    CHECK(report.at("mapped") == 2);
    CHECK(report.at("merges").is_string());
    CHECK(report.at("modules").at(2).at("problem").get<std::string>().find("layers.7") != std::string::npos);
    const auto text = run_tool({"check", at.path("model"), at.path("larger")});
    CHECK(text.exit_code == 1);
    CHECK(text.out.find("no place: model.layers.7.mlp.up_proj") != std::string::npos);
    CHECK(run_tool({"check", at.path("model"), at.path("nothing")}).exit_code == 1);
}

TEST_CASE("inspect lists a GGUF model and a GGUF adapter") {
    const checked_folder at;
    const auto model = at.path("model.gguf");
    REQUIRE(run_tool({"convert", at.path("model"), "--to", "gguf", "--output", model}).exit_code == 0);
    const auto listed = object_in(run_tool({"inspect", model, "--spectra", "--json"}));
    const auto weights = object_in(run_tool({"inspect", at.path("model"), "--spectra", "--json"}));
    CHECK(listed.at("kind") == "gguf");
    CHECK(listed.at("parameters") == weights.at("parameters"));
    CHECK(listed.at("metadata").at("general.architecture") == "llama");
    CHECK(listed.at("metadata").at("llama.block_count") == tiny_layers);
    const auto spectrum_of = [](const nlohmann::json& from, const std::string& name) {
        for (const auto& t : from.at("tensors")) {
            if (t.at("name") == name) {
                return t.at("spectrum");
            }
        }
        return nlohmann::json();
    };
    CHECK(spectrum_of(listed, "blk.0.ffn_down.weight") == spectrum_of(weights, "model.layers.0.mlp.down_proj.weight"));

    const auto adapter = at.path("adapter.gguf");
    REQUIRE(run_tool({"convert", at.path("adapter"), "--model", at.path("model"), "--to", "gguf", "--output", adapter})
                .exit_code == 0);
    const auto inside = object_in(run_tool({"inspect", adapter, "--json"}));
    CHECK(inside.at("kind") == "adapter");
    CHECK(inside.at("modules").size() == 2);
    CHECK(inside.at("modules").at(0).at("module") == "blk.0.attn_q.weight");
    CHECK(inside.at("modules").at(0).at("scaling") == 2.0);
    write_text(at.folder / "broken.gguf", "GGUF and no more");
    CHECK(run_tool({"inspect", at.path("broken.gguf")}).exit_code == 1);
}

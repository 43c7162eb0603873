// SPDX-License-Identifier: MIT
// Which tensor of a base an adapter means, and how it lies there. peft #3531 (Conv1D), vllm #34186 (wrappers), litgpt PR
// #650 (quantized bases).
#include <lowrank/io/checkpoints/detail/merge_targets.hpp>

#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/checkpoints/merge_checkpoint.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::tensor_of_ones;

namespace {

peft_adapter adapter_of(const std::vector<std::pair<std::string, module_shape>>& modules, bool flag) {
    peft_adapter out;
    for (const auto& [name, shape] : modules) {
        auto lora = make_lora<float>(shape.out, shape.in, {.r = 1, .lora_alpha = 1});
        lora.lora_A.reshaped().setLinSpaced(1, 2);
        lora.lora_B.reshaped().setLinSpaced(-1, 1);
        out.modules[name] = std::move(lora);
    }
    out.config.fan_in_fan_out = flag;
    return out;
}

/// Whether a tensor changed by the transpose of the module's delta.
bool is_turned(const checkpoint& base, const checkpoint& merged, const std::string& name, const matrix<float>& delta) {
    const row_matrix<float> d = *merged.matrix<float>(name) - *base.matrix<float>(name);
    if (d.rows() == delta.cols() && d.cols() == delta.rows() && (d - delta.transpose()).cwiseAbs().maxCoeff() < 1e-6F) {
        return true;
    }
    REQUIRE(d.rows() == delta.rows());
    CHECK((d - delta).cwiseAbs().maxCoeff() < 1e-6F);
    return false;
}

}  // namespace

TEST_CASE("GPT-2's layers are stored in x out whatever the flag of the adapter") {
    temporary_folder folder;
    std::filesystem::create_directories(folder / "base");
    REQUIRE(write_file(folder / "base/config.json", std::string(R"({"model_type": "gpt2"})")));
    REQUIRE(write_safetensors(
        folder / "base/model.safetensors",
        {tensor_of_ones("transformer.h.0.attn.c_attn.weight", {4, 12}),
         tensor_of_ones("transformer.h.0.attn.c_proj.weight", {4, 4}), tensor_of_ones("lm_head.weight", {7, 4}),
         tensor_of_ones("transformer.wte.weight", {7, 4})}));
    const auto base = checkpoint::open(folder / "base");
    for (const bool flag : {true, false}) {
        const auto adapter = adapter_of(
            {{"transformer.h.0.attn.c_attn", {12, 4}}, {"transformer.h.0.attn.c_proj", {4, 4}}, {"lm_head", {7, 4}}},
            flag);
        const auto report = merge_checkpoint(*base, adapter, folder / "out");
        REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
        CHECK(report->notes.size() == 1);  // one of the layers is stored otherwise than the flag says
        const auto merged = checkpoint::open(folder / "out");
        for (const auto& [module, held] : adapter.modules) {
            CHECK(is_turned(*base, *merged, module + ".weight", lora_of(held).delta().dense()) ==
                  (module != "lm_head"));
        }
    }
}

TEST_CASE("without an architecture the flag decides, and shapes that fit only otherwise are refused or said") {
    temporary_folder folder;
    REQUIRE(write_safetensors(folder / "b.safetensors",
                              {tensor_of_ones("x.weight", {4, 6}), tensor_of_ones("y.weight", {3, 5})}));
    const auto base = checkpoint::open(folder / "b.safetensors");
    const auto mixed = adapter_of({{"x", {6, 4}}, {"y", {3, 5}}}, true);
    const auto report = merge_checkpoint(*base, mixed, folder / "out");
    REQUIRE(report);
    CHECK(report->notes.front().find("fan_in_fan_out") != std::string::npos);
    const auto turned = merge_checkpoint(*base, adapter_of({{"x", {6, 4}}}, false), folder / "out");
    REQUIRE_FALSE(turned);
    CHECK(turned.error().message.find("fit the other way round") != std::string::npos);
    CHECK(turned.error().message.find("[6, 4]") != std::string::npos);
}

TEST_CASE("wrappers between the names of adapter and base are taken off and said") {
    temporary_folder folder;
    REQUIRE(
        write_safetensors(folder / "b.safetensors", {tensor_of_ones("model.language_model.layers.0.q.weight", {3, 3}),
                                                     tensor_of_ones("model.visual.blocks.0.q.weight", {3, 3})}));
    const auto base = checkpoint::open(folder / "b.safetensors");
    for (const char* name : {"model.layers.0.q", "_orig_mod.model.layers.0.q", "language_model.layers.0.q"}) {
        const auto report = merge_checkpoint(*base, adapter_of({{name, {3, 3}}}, false), folder / "out");
        REQUIRE_MESSAGE(report, name);
        CHECK(report->weights.contains("model.language_model.layers.0.q.weight"));
        CHECK_MESSAGE(report->notes.front().find("where those of the model have") != std::string::npos,
                      report->notes.front());
    }
    const auto lost = merge_checkpoint(*base, adapter_of({{"model.mtp.layers.0.q", {3, 3}}}, false), folder / "out");
    REQUIRE_FALSE(lost);
    CHECK(lost.error().message.find("\"model.language_model.layers.0.q\"") != std::string::npos);
}

TEST_CASE("nothing is merged into quantized weights, and an adapter without modules is a failure") {
    temporary_folder folder;
    REQUIRE(write_safetensors(
        folder / "b.safetensors",
        {tensor_of_ones("a.weight", {8, 1}), tensor_of_ones("a.weight.absmax", {1}),
         tensor_of_ones("b.qweight", {1, 4}), tensor_of_ones("c.weight", {2, 2}), tensor_of_ones("c.SCB", {2})}));
    const auto base = checkpoint::open(folder / "b.safetensors");
    for (const char* name : {"a", "b", "c"}) {
        const auto report = merge_checkpoint(*base, adapter_of({{name, {4, 4}}}, false), folder / "out");
        REQUIRE_FALSE(report);
        CHECK(report.error().code == errc::unsupported);
        CHECK(report.error().message.find("is quantized") != std::string::npos);
    }
    CHECK(merge_checkpoint(*base, peft_adapter{}, folder / "out").error().message.find("holds no module") !=
          std::string::npos);
}

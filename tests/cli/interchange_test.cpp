// SPDX-License-Identifier: MIT
// Merging, comparing, extracting, resizing and converting, on the reference model and its adapters.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>

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

TEST_CASE("an adapter of Flux goes from kohya to diffusers and back, and into checkpoints of both layouts") {
    using namespace lowrank;
    const temporary_folder folder;
    const auto filled = [](const char* name, Eigen::Index rows, Eigen::Index cols, std::uint64_t stream) {
        row_matrix<float> x(rows, cols);
        fill_uniform(x, -1.0F, 1.0F, philox(7, stream));
        return tensor_of(name, x);
    };
    row_matrix<float> alpha(1, 1);
    alpha(0, 0) = 2;
    auto scalar = tensor_of("lora_unet_double_blocks_0_img_attn_qkv.alpha", alpha);
    scalar.shape.clear();
    const std::vector<tensor_to_write> adapter = {
        scalar, filled("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", 4, 8, 1),
        filled("lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", 24, 4, 2)};
    const auto kohya = (folder / "kohya.safetensors").string(), peft = (folder / "peft.safetensors").string(),
               back = (folder / "back.safetensors").string();
    REQUIRE(write_safetensors(kohya, adapter));
    const auto there = object_of({"convert", kohya, "--to", "diffusers_peft", "--output", peft});
    CHECK(there.at("modules") == 3);
    const std::string to = "transformer.transformer_blocks.0.attn.";
    CHECK(there.at("renamed").at("lora_unet_double_blocks_0_img_attn_qkv") ==
          nlohmann::json({to + "to_q", to + "to_k", to + "to_v"}));
    const auto unsure =
        run_tool({"convert", peft, "--to", "kohya", "--output", back});  // SD3 has modules of these names
    CHECK(unsure.exit_code == 1);
    CHECK(unsure.err.find("--image-model flux or sd3") != std::string::npos);
    CHECK(object_of({"convert", peft, "--to", "kohya", "--image-model", "flux", "--output", back}).at("modules") == 1);
    const auto restored = checkpoint::open(back);
    REQUIRE(restored);
    for (const tensor_to_write& t : adapter) {
        CAPTURE(t.name);
        const auto bytes = restored->bytes(t.name);
        REQUIRE(bytes);
        CHECK(std::equal(t.bytes.begin(), t.bytes.end(), bytes->begin(), bytes->end()));
    }

    // The rows of k change in the same way in both layouts.
    const auto w = filled("double_blocks.0.img_attn.qkv.weight", 24, 8, 3);
    const auto k = [&](const std::filesystem::path& base, const std::string& tensor) {
        const auto merged = (base.string() + "-merged");
        CHECK(object_of({"merge", base.string(), "--adapter", kohya, "--output", merged}).at("matrices").size() >= 1);
        const auto out = checkpoint::open(merged);
        REQUIRE(out);
        return *out->matrix<float>(tensor);
    };
    std::filesystem::create_directory(folder / "fused");
    std::filesystem::create_directory(folder / "split");
    REQUIRE(write_safetensors(folder / "fused/model.safetensors", {w}));
    row_matrix<float> all(24, 8);
    fill_uniform(all, -1.0F, 1.0F, philox(7, 3));
    const std::string attn = "transformer_blocks.0.attn.";
    REQUIRE(write_safetensors(folder / "split/model.safetensors",
                              {tensor_of(attn + "to_q.weight", row_matrix<float>(all.topRows(8))),
                               tensor_of(attn + "to_k.weight", row_matrix<float>(all.middleRows(8, 8))),
                               tensor_of(attn + "to_v.weight", row_matrix<float>(all.bottomRows(8)))}));
    const auto fused = k(folder / "fused", w.name), split = k(folder / "split", attn + "to_k.weight");
    CHECK((fused.middleRows(8, 8) - split).norm() < 1e-6F * split.norm());
    CHECK((split - all.middleRows(8, 8)).norm() > 0.1F);
}

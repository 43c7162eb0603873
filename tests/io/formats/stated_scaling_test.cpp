// SPDX-License-Identifier: MIT
// Where the scaling of an adapter file is found. ComfyUI PR #15830, diffusers PR #11324, sglang PR #35952.
#include <lowrank/io/formats/detail/stated_scaling.hpp>

#include <map>
#include <string>

#include <lowrank/io/formats/adapter_files.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::tensor_of_ones;

namespace {

using header = std::map<std::string, std::string>;

/// Reads a file of one module of rank 4 under PEFT's names with this header.
result<lora_file> with(const temporary_folder& folder, const header& metadata, const lora_file_options& opt = {}) {
    REQUIRE(write_safetensors(
        folder / "f.safetensors",
        {tensor_of_ones("transformer.a.lora_A.weight", {4, 6}), tensor_of_ones("transformer.a.lora_B.weight", {5, 4})},
        metadata));
    return read_lora_file(folder / "f.safetensors", opt);
}

double scaling(const result<lora_file>& file) {
    REQUIRE_MESSAGE(file, (file ? std::string() : file.error().message));
    return static_cast<double>(lora_of(file->modules.at("transformer.a")).scaling());
}

}  // namespace

TEST_CASE("alpha stands in the header in several spellings") {
    temporary_folder folder;
    CHECK(scaling(with(folder, {{"lora_adapter_metadata", R"({"transformer.r": 4, "transformer.lora_alpha": 16})"}})) ==
          4);
    CHECK(scaling(with(folder, {{"lora_adapter_metadata", R"({"transformer": {"r": 4, "lora_alpha": 2}})"}})) == 0.5);
    CHECK(scaling(with(folder, {{"lora_adapter_metadata",
                                 R"({"transformer.r": 8, "transformer.lora_alpha": 8, "transformer.use_rslora": true,
                                     "transformer.rank_pattern": {"a": 4}, "transformer.alpha_pattern": {"a": 6}})"}})) ==
          3);
    CHECK(scaling(with(folder, {{"alpha", "16"}, {"rank", "4"}})) == 4);
    CHECK(scaling(with(folder, {{"transformer.lora_alpha", "16"}, {"transformer.r", "4"}})) == 4);
    CHECK(scaling(with(folder, {{"unet.lora_alpha", "1"}, {"transformer.lora_alpha", "12"}})) == 3);
    CHECK(scaling(with(folder, {{"ss_network_alpha", "2"}, {"ss_network_dim", "4"}})) == 0.5);
    const auto file = with(folder, {{"alpha", "16"}});
    REQUIRE(file->warnings.size() == 1);
    CHECK(file->warnings.front().find("the header's alpha") != std::string::npos);
    CHECK(scaling(with(folder, {{"alpha", "16"}}, {.lora_alpha = 8})) == 2);  // the caller goes before the header
}

TEST_CASE("where nothing says a scaling, one is assumed and said") {
    temporary_folder folder;
    for (const header& h : {header{}, header{{"alpha", "Dynamic"}}, header{{"rank", "4"}}}) {
        const auto file = with(folder, h);
        CHECK(scaling(file) == 1);
        REQUIRE(file->warnings.size() == 1);
        CHECK(file->warnings.front().find("no alpha found") != std::string::npos);
        CHECK(file->warnings.front().find("scaling 1 assumed") != std::string::npos);
    }
}

TEST_CASE("a header of another rank, and one that cannot be used, are refused") {
    temporary_folder folder;
    const auto other = with(folder, {{"alpha", "16"}, {"rank", "8"}});
    REQUIRE_FALSE(other);
    CHECK(other.error().code == errc::mismatch);
    CHECK(other.error().message.find("factors of rank 4, the header's alpha says 8") != std::string::npos);
    CHECK(scaling(with(folder, {{"alpha", "16"}, {"rank", "8"}}, {.lora_alpha = 4})) == 1);
    CHECK_FALSE(with(folder, {{"lora_adapter_metadata", "{"}}));
    CHECK_FALSE(with(folder, {{"lora_adapter_metadata", R"({"r": 4, "init_lora_weights": "pissa"})"}}));
}

TEST_CASE("the configuration beside a file that is named directly is used") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "adapter_config.json",
                       std::string(R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true})")));
    CHECK(scaling(with(folder, {})) == 4);
    CHECK(scaling(with(folder, {{"alpha", "4"}})) == 1);  // the header is nearer
    REQUIRE(write_safetensors(folder / "adapter_model.safetensors",
                              {tensor_of_ones("base_model.model.a.lora_A.weight", {4, 6}),
                               tensor_of_ones("base_model.model.a.lora_B.weight", {5, 4})}));
    const auto whole = read_adapter(folder / "adapter_model.safetensors");  // the file of a folder
    REQUIRE_MESSAGE(whole, (whole ? std::string() : whole.error().message));
    CHECK(lora_of(whole->adapter.modules.at("a")).use_rslora);
    REQUIRE(
        write_file(folder / "adapter_config.json", std::string(R"({"lora_parameters": {"rank": 4, "scale": 20.0}})")));
    REQUIRE(write_safetensors(folder / "0000100_adapters.safetensors",
                              {tensor_of_ones("a.lora_a", {6, 4}), tensor_of_ones("a.lora_b", {4, 5})}));
    CHECK(lora_of(read_lora_file(folder / "0000100_adapters.safetensors")->modules.at("a")).scaling() == 20);
}

TEST_CASE("formats without a place for alpha keep it in the header, or in lora_B where modules differ") {
    temporary_folder folder;
    auto a = make_lora<float>(5, 6, {.r = 2, .lora_alpha = 3});
    a.lora_B.setConstant(0.5F);
    auto b = a;
    for (const char* format : {"loralib", "peft"}) {
        REQUIRE(write_lora_file(folder / "f", {{"a", a}, {"b", b}}, {.format = format}));
        const auto same = read_lora_file(folder / "f");
        REQUIRE(same);
        for (const auto& entry : same->modules) {
            CHECK(lora_of(entry.second).lora_B == a.lora_B);
            CHECK(lora_of(entry.second).scaling() == 1.5F);
        }
        auto other = b;
        other.lora_alpha = 8;
        REQUIRE(write_lora_file(folder / "f", {{"a", a}, {"b", other}}, {.format = format}));
        const auto differ = read_lora_file(folder / "f");
        REQUIRE(differ);
        CHECK(lora_of(differ->modules.begin()->second).delta().dense() == a.delta().dense());
        CHECK(lora_of(differ->modules.rbegin()->second).delta().dense() == other.delta().dense());
    }
}

// SPDX-License-Identifier: MIT
// A quantized model becomes one of floats that the other commands read.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors.hpp>

#include "process.hpp"
#include "tiny_checkpoint.hpp"

using namespace lowrank_tests;

namespace {

/// The tiny model with its projections as int8 rows, the layout of compressed-tensors.
lowrank::row_matrix<float> write_int8_checkpoint(const std::filesystem::path& folder) {
    write_tiny_checkpoint(folder);
    const auto weights = lowrank::checkpoint::open(folder);
    REQUIRE(weights);
    std::vector<lowrank::tensor_to_write> out;
    lowrank::row_matrix<float> of_first;
    for (const auto& place : weights->tensors()) {
        const auto& t = *place.info;
        if (t.shape.size() != 2 || t.name.find("_proj") == std::string::npos) {
            const auto bytes = weights->bytes(place);
            const auto owned = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
            out.push_back({t.name, t.type, t.shape, *owned, owned});
            continue;
        }
        const auto w = weights->matrix<float>(t.name);
        REQUIRE(w);
        auto codes = std::make_shared<std::vector<std::byte>>();
        lowrank::vector<float> scales(w->rows());
        lowrank::row_matrix<float> decoded(w->rows(), w->cols());
        for (Eigen::Index i = 0; i < w->rows(); ++i) {
            scales(i) = w->row(i).cwiseAbs().maxCoeff() / 127;
            for (Eigen::Index j = 0; j < w->cols(); ++j) {
                const float q = std::nearbyint((*w)(i, j) / scales(i));
                codes->push_back(static_cast<std::byte>(static_cast<std::int8_t>(q)));
                decoded(i, j) = q * scales(i);
            }
        }
        if (of_first.size() == 0) {
            of_first = decoded;
        }
        out.push_back({t.name, lowrank::dtype::i8, t.shape, *codes, codes});
        auto of_scales = lowrank::tensor_of(t.name + "_scale", scales);
        of_scales.shape = {t.shape[0], 1};
        out.push_back(std::move(of_scales));
    }
    REQUIRE(lowrank::write_safetensors(folder / "model.safetensors", out));
    auto config = nlohmann::json::parse(tiny_config());
    config["quantization_config"] = {{"quant_method", "compressed-tensors"}, {"format", "int-quantized"}};
    REQUIRE(lowrank::write_file(folder / "config.json", config.dump()));
    return of_first;
}

}  // namespace

TEST_CASE("dequantize writes a model that runs, without a word of its quantization") {
    const temporary_folder folder;
    const auto first = write_int8_checkpoint(folder / "model");
    const auto out = (folder / "decoded").string();
    REQUIRE(run_tool({"inspect", (folder / "model").string()}).exit_code == 0);
    const auto refused = run_tool({"generate", (folder / "model").string(), "--prompt", "a"});
    CHECK(refused.exit_code == 1);
    CHECK(refused.err.find("'lowrank dequantize'") != std::string::npos);
    const auto r = run_tool({"dequantize", (folder / "model").string(), "--output", out, "--json"});
    REQUIRE_MESSAGE(r.exit_code == 0, r.err);
    const auto report = nlohmann::json::parse(r.out);
    CHECK(report.at("dtype") == "F32");  // the model's own
    CHECK(report.at("weights").size() == 7 * static_cast<std::size_t>(tiny_layers));
    CHECK(report.at("weights").at(0).at("scheme") == "I8 with scales");
    CHECK(report.at("weights").at(0).at("relative_error") == 0.0);
    const auto decoded = lowrank::checkpoint::open(out);
    REQUIRE(decoded);
    CHECK(decoded->matrix<float>(report.at("weights").at(0).at("matrix").get<std::string>()).value() == first);
    CHECK(std::none_of(decoded->tensors().begin(), decoded->tensors().end(),
                       [](const auto& place) { return place.info->name.ends_with("_scale"); }));
    const auto opened = lowrank::mapped_file::open(std::filesystem::path(out) / "config.json");
    REQUIRE(opened);
    const std::string config(reinterpret_cast<const char*>(opened->bytes().data()), opened->bytes().size());
    CHECK(config.find("quantization_config") == std::string::npos);
    CHECK(run_tool({"generate", out, "--prompt", "a", "--tokens", "2"}).exit_code == 0);
    const auto text =
        run_tool({"dequantize", (folder / "model").string(), "--type", "f16", "--output", out, "--force"});
    CHECK(text.exit_code == 0);
    CHECK(text.out.find("14 weights decoded to F16") != std::string::npos);
    const auto again = run_tool({"dequantize", out, "--output", (folder / "twice").string()});
    CHECK(again.exit_code == 1);
    CHECK(again.err.find("all weights of the checkpoint are floats") != std::string::npos);
}

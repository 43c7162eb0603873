// SPDX-License-Identifier: MIT
#include <lowrank/io/quantized/dequantize_checkpoint.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <lowrank/quant/formats/small_floats.hpp>

#include "quantized/quantized_support.hpp"
#include "support/executors.hpp"

using namespace lowrank;
using lowrank_tests::killed_after;
using lowrank_tests::killing_disk;
using lowrank_tests::quantized_checkpoint;
using lowrank_tests::random_codes;
using lowrank_tests::random_scales;
using lowrank_tests::raw_tensor;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

constexpr std::size_t out_rows = 130;
constexpr std::size_t in_cols = 40;

std::vector<std::uint8_t> codes(std::uint64_t seed) {
    return random_codes<std::uint8_t>(out_rows * in_cols, seed, 0x7e);
}

row_matrix<float> norms() { return row_matrix<float>::Constant(1, 40, 1.25F); }

/// Two files: the codes of `up` in the first, their scales in the second, where `down` lies whole.
checkpoint two_files(const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    const auto scales = random_scales(2, 3);
    REQUIRE(write_safetensors(
        folder / "model-1.safetensors",
        {raw_tensor("up.weight", dtype::f8_e4m3, {out_rows, in_cols}, codes(1)), tensor_of("norm.weight", norms())},
        {{"format", "pt"}}));
    REQUIRE(write_safetensors(folder / "model-2.safetensors",
                              {raw_tensor("up.weight_scale_inv", dtype::f32, {2, 1}, scales),
                               raw_tensor("down.weight", dtype::f8_e4m3, {out_rows, in_cols}, codes(2)),
                               raw_tensor("down.weight_scale_inv", dtype::f32, {2, 1}, scales)}));
    REQUIRE(write_file(folder / "model.safetensors.index.json",
                       R"({"weight_map":{"up.weight":"model-1.safetensors","norm.weight":"model-1.safetensors",)"
                       R"("up.weight_scale_inv":"model-2.safetensors","down.weight":"model-2.safetensors",)"
                       R"("down.weight_scale_inv":"model-2.safetensors"}})"));
    auto base = checkpoint::open(folder);
    REQUIRE(base);
    return *base;
}

row_matrix<float> expected(std::uint64_t seed) {
    const auto of = codes(seed);
    const auto scales = random_scales(2, 3);
    row_matrix<float> w(static_cast<Eigen::Index>(out_rows), static_cast<Eigen::Index>(in_cols));
    for (std::size_t k = 0; k < of.size(); ++k) {
        w.data()[k] = float8_value(float8_format::e4m3, of[k]) * scales[k / in_cols / 128];
    }
    return w;
}

}  // namespace

TEST_CASE("dequantize: weights are rounded once, scales go, all else is the same bytes") {
    const temporary_folder folder;
    const checkpoint base = two_files(folder / "base");
    for (const dtype type : {dtype::f32, dtype::bf16, dtype::f16}) {
        CAPTURE(name_of(type));
        const auto to = folder / std::string(name_of(type));
        const auto report = dequantize_checkpoint(base, to, {.type = type});
        REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
        REQUIRE(report->weights.size() == 2);
        const auto& up = report->weights.at("up.weight");
        CHECK(up.scheme == "F8_E4M3 with scales");
        CHECK(up.not_finite == 0);
        const auto out = checkpoint::open(to);
        REQUIRE(out);
        CHECK(out->tensors().size() == 3);
        CHECK(out->shards()[0].file.metadata().at("format") == "pt");
        CHECK(std::ranges::equal(*out->bytes("norm.weight"), *base.bytes("norm.weight")));
        REQUIRE(out->find("up.weight")->type == type);
        const row_matrix<float> w = expected(1);
        const auto got = out->matrix<float>("up.weight");
        REQUIRE(got);
        const row_matrix<float> rounded = type == dtype::f32    ? w
                                          : type == dtype::bf16 ? row_matrix<float>(w.cast<bfloat16>().cast<float>())
                                                                : row_matrix<float>(w.cast<half>().cast<float>());
        CHECK(*got == rounded);
        CHECK(up.relative_error == doctest::Approx(static_cast<double>((rounded - w).norm() / w.norm())).epsilon(1e-4));
        CHECK((up.relative_error == 0) == (type == dtype::f32));
    }
}

TEST_CASE("dequantize: the same bytes for every tile and executor, and after every interruption") {
    const temporary_folder folder;
    const checkpoint base = two_files(folder / "base");
    REQUIRE(dequantize_checkpoint(base, folder / "whole"));
    const auto same = [&](const std::filesystem::path& to) {
        for (const char* name : {"model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"}) {
            CHECK(text_of(to / name) == text_of(folder / "whole" / name));
        }
    };
    for (const auto& exec : lowrank_tests::executors()) {
        REQUIRE(dequantize_checkpoint(base, folder / "tiles", {.tile_bytes = 1, .exec = exec}));
        same(folder / "tiles");
    }
    Eigen::Index kept = 0;
    std::uint64_t room = 100;
    for (bool killed = true; killed; room += room / 3) {
        killed = killed_after(room, [&](killing_disk& disk) {
            return dequantize_checkpoint(base, folder / "out", {.resume = true, .write = {.calls = &disk}}).has_value();
        });
        const auto again = dequantize_checkpoint(base, folder / "out", {.resume = true});
        REQUIRE_MESSAGE(again, (again ? "" : again.error().message));
        CHECK(again->weights.size() == 2);
        CHECK(again->weights.at("up.weight").shape == std::vector<std::uint64_t>{out_rows, in_cols});
        kept = std::max(kept, again->kept_files * (killed ? 1 : 0));
        same(folder / "out");
        std::filesystem::remove_all(folder / "out");
    }
    CHECK(kept == 1);
}

TEST_CASE("dequantize: numbers beyond a type, NaN, and nothing to decode are said") {
    const temporary_folder folder;
    const auto large = quantized_checkpoint(
        folder / "large", {raw_tensor("up.weight", dtype::f8_e4m3, {1, 2}, std::vector<std::uint8_t>{0x7e, 0x7f}),
                           raw_tensor("up.weight_scale", dtype::f32, {}, std::vector<float>{1000})});
    const auto refused = dequantize_checkpoint(large, folder / "half", {.type = dtype::f16});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message ==
          "weight \"up.weight\": 1 of its numbers are beyond the range of F16; decode to BF16 or F32");
    CHECK_FALSE(std::filesystem::exists(folder / "half" / "model.safetensors"));
    const auto wide = dequantize_checkpoint(large, folder / "wide", {.type = dtype::f32});
    REQUIRE(wide);
    CHECK(wide->weights.at("up.weight").not_finite == 1);
    const auto floats = quantized_checkpoint(folder / "floats", {tensor_of("up.weight", norms())});
    const auto nothing = dequantize_checkpoint(floats, folder / "nothing");
    REQUIRE_FALSE(nothing);
    CHECK(nothing.error().code == errc::not_found);
    const auto same_folder = dequantize_checkpoint(large, folder / "large");
    REQUIRE_FALSE(same_folder);
    CHECK(same_folder.error().message.find("would replace its base") != std::string::npos);
}

TEST_CASE("dequantize: the configuration forgets how the weights were quantized") {
    const auto text = dequantized_config(
        R"({"model_type":"llama","torch_dtype":"float16","quantization_config":{"quant_method":"gptq"},)"
        R"("text_config":{"dtype":"float16","quantization_config":{}}})",
        dtype::bf16);
    REQUIRE(text);
    CHECK(
        *text ==
        "{\n  \"model_type\": \"llama\",\n  \"text_config\": {\n    \"dtype\": \"bfloat16\"\n  },\n  \"torch_dtype\": "
        "\"bfloat16\"\n}\n");
    CHECK(dequantized_config("{}", dtype::f16)->find("\"torch_dtype\": \"float16\"") != std::string::npos);
    CHECK_FALSE(dequantized_config("[]", dtype::f16));
    CHECK_FALSE(dequantized_config("{", dtype::f16));
}

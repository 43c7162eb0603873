// SPDX-License-Identifier: MIT
// A quantized type of the test alone: written to a GGUF, read, converted to transformers, and under LoftQ, through the
// lists that the built-in types are in.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/gguf.hpp>
#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/models/gguf_model.hpp>
#include <lowrank/lora/init/loftq.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>

#include "io/io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

constexpr auto toy = static_cast<ggml_type>(200);

/// Four elements in 8 bytes: d as a float, q[4]; x = d q.
void decode_toy(const std::uint8_t* b, float* x) {
    float d;
    std::memcpy(&d, b, sizeof d);
    for (int i = 0; i < 4; ++i) {
        x[i] = d * static_cast<float>(static_cast<std::int8_t>(b[4 + i]));
    }
}
void encode_toy(const float* x, std::uint8_t* b) {
    float d = 0;
    for (int i = 0; i < 4; ++i) {
        d = std::max(d, std::abs(x[i]) / 127);
    }
    std::memcpy(b, &d, sizeof d);
    for (int i = 0; i < 4; ++i) {
        b[4 + i] = static_cast<std::uint8_t>(static_cast<int>(d > 0 ? std::round(x[i] / d) : 0.0F));
    }
}

std::vector<quantized_type> with_toy_type() {
    std::vector<quantized_type> all(quantized_types().begin(), quantized_types().end());
    all.push_back(quantized_type_of<4, 8, decode_toy, encode_toy>(toy, "TOY"));
    return all;
}

}  // namespace

TEST_CASE("a toy type is encoded and decoded, and unknown without its list") {
    const auto types = with_toy_type();
    CHECK(facts_of(toy).block == 0);
    CHECK_FALSE(is_decodable(toy));
    CHECK(facts_of(toy, types).name == "TOY");
    CHECK(ggml_bytes(toy, 8, types) == 16);
    const std::array<float, 8> x{1, -2, 0.5F, 127, 0, 0, 0, 0};
    std::array<std::byte, 16> bytes{};
    std::array<float, 8> back{};
    quantize_ggml(toy, x, bytes, types);
    dequantize_ggml(toy, bytes, back, types);
    CHECK(back == std::array<float, 8>{1, -2, 1, 127, 0, 0, 0, 0});
    CHECK_THROWS_AS(quantize_ggml(toy, x, bytes), contract_violation);
    CHECK_THROWS_AS(dequantize_ggml(toy, bytes, back), contract_violation);
}

TEST_CASE("a model of a toy type is read, converted to transformers, and refused without its list") {
    const auto types = with_toy_type();
    temporary_folder folder;
    row_matrix<float> w(2, 8);
    w << 1, 2, 3, 127, -1, -2, -3, 127, 0, 0, 0, 0, 5, 5, 5, 127;
    std::vector<gguf_entry> entries = {{"general.architecture", gguf_value::of("llama")}};
    for (const char* key : {"attention.head_count", "embedding_length", "feed_forward_length", "block_count"}) {
        entries.push_back({"llama." + std::string(key), gguf_value::of(2U)});
    }
    const auto stored = gguf_tensor_of("blk.0.ffn_up.weight", w, toy, types);
    CHECK_FALSE(write_gguf(folder / "m.gguf", entries, {stored}));
    REQUIRE(write_gguf(folder / "m.gguf", entries, {stored}, {}, types));
    CHECK(gguf_file::open(folder / "m.gguf").error().message.find("type number 200") != std::string::npos);
    const auto file = gguf_file::open(folder / "m.gguf", {}, types);
    REQUIRE(file);
    CHECK(file->tensors().front().bytes == 32);
    CHECK(*file->matrix<float>("blk.0.ffn_up.weight") == w);
    const auto report = write_hf_model(folder / "hf", *file);
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    CHECK(report->decoded == std::vector<std::string>{"model.layers.0.mlp.up_proj.weight"});
    CHECK(*checkpoint::open(folder / "hf")->matrix<float>("model.layers.0.mlp.up_proj.weight") == w);
}

TEST_CASE("a base of a toy type goes under an adapter by LoftQ") {
    const auto types = with_toy_type();
    row_matrix<float> w(6, 8);
    for (Eigen::Index i = 0; i < w.size(); ++i) {
        w.data()[i] = std::sin(static_cast<float>(i * i));
    }
    const ggml_quantizer quantize{.type = toy, .types = types};
    const auto start = loftq(w, quantize, {.r = 2, .lora_alpha = 2});
    REQUIRE(start);
    CHECK(start.base == quantize(w));
    CHECK(start.relative_without < 0.01);
    CHECK(start.relative < start.relative_without);
}

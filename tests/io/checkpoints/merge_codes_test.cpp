// SPDX-License-Identifier: MIT
// Adapters merged into weights of 8-bit floats with scales.
#include <lowrank/io/checkpoints/check_adapter.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <lowrank/io/peft/kinds/rotations/oft.hpp>
#include <lowrank/io/quantized/quantized_weight.hpp>
#include <lowrank/quant/formats/small_floats.hpp>

#include "quantized/quantized_support.hpp"

using namespace lowrank;
using lowrank_tests::decoded;
using lowrank_tests::killed_after;
using lowrank_tests::killing_disk;
using lowrank_tests::quantized_checkpoint;
using lowrank_tests::random_codes;
using lowrank_tests::random_scales;
using lowrank_tests::raw_tensor;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

constexpr std::size_t coded_rows = 140;
constexpr std::size_t coded_cols = 136;

lora_adapter<float> lora_of_codes(float size) {
    auto a = make_lora<float>(static_cast<Eigen::Index>(coded_rows), static_cast<Eigen::Index>(coded_cols),
                              {.r = 2, .lora_alpha = 4, .seed = 5});
    fill_normal(a.lora_B, size, philox(6));
    return a;
}

/// A weight in blocks of 128 x 128, of the first of two files; its scales lie in the second.
checkpoint coded_base(const std::filesystem::path& folder, dtype scale_type = dtype::f32) {
    std::filesystem::create_directories(folder);
    const auto codes = random_codes<std::uint8_t>(coded_rows * coded_cols, 8, 0x70);  // 256 at most
    const auto scales = random_scales(4, 9);
    const vector<float> numbers = Eigen::Map<const vector<float>>(scales.data(), 4);
    auto of_scales = scale_type == dtype::bf16
                         ? tensor_of("up.weight_scale_inv", vector<bfloat16>(numbers.cast<bfloat16>()))
                         : tensor_of("up.weight_scale_inv", numbers);
    of_scales.shape = {2, 2};
    REQUIRE(write_safetensors(folder / "model-1.safetensors",
                              {raw_tensor("up.weight", dtype::f8_e4m3, {coded_rows, coded_cols}, codes),
                               tensor_of("norm.weight", vector<float>(vector<float>::Ones(8)))}));
    REQUIRE(write_safetensors(folder / "model-2.safetensors", {of_scales}));
    REQUIRE(write_file(folder / "model.safetensors.index.json",
                       R"({"weight_map":{"up.weight":"model-1.safetensors","norm.weight":"model-1.safetensors",)"
                       R"("up.weight_scale_inv":"model-2.safetensors"}})"));
    auto base = checkpoint::open(folder);
    REQUIRE(base);
    return *base;
}

row_matrix<float> weight_of(const checkpoint& base) {
    const auto found = quantized_weights(base);
    REQUIRE(found);
    REQUIRE(found->size() == 1);
    const auto values = decoded(found->front());
    return Eigen::Map<const row_matrix<float>>(values.data(), found->front().rows(), found->front().cols());
}

peft_adapter adapter_of(peft_module module) {
    peft_adapter out;
    out.modules["up"] = std::move(module);
    out.config = peft_config_for(out.modules);
    return out;
}

}  // namespace

TEST_CASE("merge into FP8: each element is the nearest code of the sum, scales stay while they reach") {
    for (const dtype scale_type : {dtype::f32, dtype::bf16}) {
        const temporary_folder folder;
        const checkpoint base = coded_base(folder / "base", scale_type);
        const auto lora = lora_of_codes(0.05F);
        const auto report = merge_checkpoint(base, adapter_of(lora), folder / "out");
        REQUIRE_MESSAGE(report, (report ? "" : report.error().message));
        const auto& audit = report->weights.at("up.weight");
        CHECK(audit.type == dtype::f8_e4m3);
        CHECK(audit.rank == 2);
        CHECK(audit.entries == coded_rows * coded_cols);
        const auto merged = checkpoint::open(folder / "out");
        REQUIRE(merged);
        CHECK(merged->find("up.weight")->type == dtype::f8_e4m3);
        CHECK(std::ranges::equal(*merged->bytes("up.weight_scale_inv"), *base.bytes("up.weight_scale_inv")));
        CHECK(std::ranges::equal(*merged->bytes("norm.weight"), *base.bytes("norm.weight")));

        const row_matrix<float> before = weight_of(base);
        const row_matrix<float> after = weight_of(*merged);
        const row_matrix<double> wanted =
            before.cast<double>() + 2.0 * lora.lora_B.cast<double>() * lora.lora_A.cast<double>();
        const auto scales = *base.matrix<float>("up.weight_scale_inv");
        const auto values = float8_values(float8_format::e4m3);
        std::size_t not_nearest = 0;
        std::uint64_t unchanged = 0;
        for (Eigen::Index i = 0; i < before.rows(); ++i) {
            for (Eigen::Index j = 0; j < before.cols(); ++j) {
                double best = 1e300;
                for (const float v : values) {
                    best = std::isnan(v)
                               ? best
                               : std::min(best,
                                          std::abs(static_cast<double>(v * scales(i / 128, j / 128)) - wanted(i, j)));
                }
                not_nearest +=
                    std::abs(static_cast<double>(after(i, j)) - wanted(i, j)) > best * (1 + 1e-5) + 1e-7 ? 1U : 0U;
                unchanged += after(i, j) == before(i, j) ? 1U : 0U;
            }
        }
        CHECK(not_nearest == 0);
        CHECK(unchanged == audit.unchanged + (audit.entries - audit.touched));
        CHECK(audit.unchanged > 0);  // 8 bits hold few of such small changes
        const double change = (wanted - before.cast<double>()).norm();
        CHECK(audit.change_norm == doctest::Approx(change).epsilon(1e-4));
        CHECK(audit.relative_error == doctest::Approx((after.cast<double>() - wanted).norm() / change).epsilon(1e-3));

        const auto checked = check_adapter(base, adapter_of(lora));
        REQUIRE(checked);
        CHECK(checked->merges);
        REQUIRE(checked->modules.size() == 1);
        REQUIRE(checked->modules[0].tensors.size() == 1);
        CHECK(checked->modules[0].tensors[0].norm == doctest::Approx(static_cast<double>(before.norm())).epsilon(1e-5));
        CHECK(checked->modules[0].tensors[0].change_norm ==
              doctest::Approx(static_cast<double>((after - before).norm())).epsilon(1e-5));
    }
}

TEST_CASE("merge into FP8: a scale that does not reach grows, the others keep their bits") {
    for (const dtype scale_type : {dtype::f32, dtype::bf16}) {
        const temporary_folder folder;
        const checkpoint base = coded_base(folder / "base", scale_type);
        auto lora = lora_of_codes(0.0F);
        lora.lora_B.row(130).setConstant(400.0F);  // of the two lower blocks
        REQUIRE(merge_checkpoint(base, adapter_of(lora), folder / "out"));
        const auto merged = checkpoint::open(folder / "out");
        REQUIRE(merged);
        const auto old_scales = *base.matrix<float>("up.weight_scale_inv");
        const auto scales = *merged->matrix<float>("up.weight_scale_inv");
        CHECK(scales.row(0) == old_scales.row(0));
        CHECK((scales.row(1).array() > old_scales.row(1).array()).all());
        const row_matrix<float> before = weight_of(base);
        const row_matrix<float> after = weight_of(*merged);
        CHECK(after.topRows(128) == before.topRows(128));
        const row_matrix<float> wanted = before + 2.0F * lora.lora_B * lora.lora_A;
        for (Eigen::Index block = 0; block < 2; ++block) {
            const Eigen::Index width = block == 0 ? 128 : 8;
            const float most = wanted.block(128, 128 * block, 12, width).cwiseAbs().maxCoeff();
            CHECK(scales(1, block) >= most / 448 * (1 - 1e-6F));
            CHECK(scales(1, block) <= most / 448 * (scale_type == dtype::bf16 ? 1.01F : 1 + 1e-6F));
        }
        const auto off = (after - wanted).cwiseAbs().array() - wanted.cwiseAbs().array() / 16;
        CHECK(off.maxCoeff() <= scales.maxCoeff() / 512);
    }
}

TEST_CASE("merge into FP8: DoRA, rotations, weights without scales or with one") {
    const auto codes = random_codes<std::uint8_t>(coded_rows * coded_cols, 8, 0x70);
    const auto close = [&](const char* name, const checkpoint& base, const peft_adapter& adapter) {
        const temporary_folder folder;
        const auto report = merge_checkpoint(base, adapter, folder / "fp8");
        REQUIRE_MESSAGE(report, (report ? name : report.error().message));
        // The same adapter on the decoded weight in float.
        const checkpoint floats = quantized_checkpoint(folder / "floats", {tensor_of("up.weight", weight_of(base))});
        REQUIRE(merge_checkpoint(floats, adapter, folder / "merged"));
        const auto want = *checkpoint::open(folder / "merged")->matrix<float>("up.weight");
        const row_matrix<float> got = weight_of(*checkpoint::open(folder / "fp8"));
        CHECK_MESSAGE(((got - want).cwiseAbs().array() <= want.cwiseAbs().array() / 16 + 1e-3F).all(), name);
        CHECK_MESSAGE((got - want).norm() < 0.05F * want.norm(), name);
        CHECK_MESSAGE(report->weights.at("up.weight").relative_error < 0.5, name);
    };
    const temporary_folder folder;
    const auto weight = raw_tensor("up.weight", dtype::f8_e4m3, {coded_rows, coded_cols}, codes);
    const checkpoint blocks = coded_base(folder / "blocks");
    const checkpoint one = quantized_checkpoint(
        folder / "one", {weight, raw_tensor("up.weight_scale", dtype::f32, {}, std::vector<float>{0.02F})});
    const checkpoint rows = quantized_checkpoint(
        folder / "rows",
        {weight, raw_tensor("up.weight_scale", dtype::f32, {coded_rows, 1}, random_scales(coded_rows, 3))});
    const checkpoint none = quantized_checkpoint(
        folder / "none", {weight, raw_tensor("up.input_scale", dtype::f32, {}, std::vector<float>{2})});
    const auto lora = lora_of_codes(0.5F);
    close("blocks", blocks, adapter_of(lora));
    close("one", one, adapter_of(lora));
    close("rows", rows, adapter_of(lora));
    close("none", none, adapter_of(lora_of_codes(60.0F)));
    close("dora", blocks,
          adapter_of(peft_lora{.lora = lora_of_codes(0.1F), .magnitude = vector<float>::Constant(140, 12.0F)}));
    oft_adapter<float> oft;
    oft.oft_R = matrix<float>::Constant(4, 34 * 33 / 2, 0.002F);
    oft.in = 136;
    close("oft", blocks, adapter_of(oft));
}

TEST_CASE("merge into FP8: killed and resumed, in tiles of any size, the bytes are the same") {
    const temporary_folder folder;
    const checkpoint base = coded_base(folder / "base");
    auto lora = lora_of_codes(3.0F);
    const auto adapter = adapter_of(lora);
    REQUIRE(merge_checkpoint(base, adapter, folder / "whole"));
    const auto same = [&](const std::filesystem::path& to) {
        for (const char* name : {"model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"}) {
            CHECK(text_of(to / name) == text_of(folder / "whole" / name));
        }
    };
    REQUIRE(merge_checkpoint(base, adapter, folder / "tiles", {.tile_bytes = 1}));
    same(folder / "tiles");
    Eigen::Index kept = 0;
    std::uint64_t room = 19000;  // the first file has 19 kB
    for (bool killed = true; killed; room += 80) {
        killed = killed_after(room, [&](killing_disk& disk) {
            return merge_checkpoint(base, adapter, folder / "out", {.resume = true, .write = {.calls = &disk}})
                .has_value();
        });
        const auto again = merge_checkpoint(base, adapter, folder / "out", {.resume = true});
        REQUIRE_MESSAGE(again, (again ? "" : again.error().message));
        CHECK(again->weights.at("up.weight").type == dtype::f8_e4m3);
        kept = std::max(kept, again->kept_files * (killed ? 1 : 0));
        same(folder / "out");
        std::filesystem::remove_all(folder / "out");
    }
    CHECK(kept >= 1);
}

TEST_CASE("merge into codes: what cannot be undone or encoded is refused") {
    const temporary_folder folder;
    const checkpoint base = coded_base(folder / "base");
    const auto adapter = adapter_of(lora_of_codes(1.0F));
    const auto checked = merge_checkpoint(base, adapter, folder / "out", {.check = true});
    REQUIRE_FALSE(checked);
    CHECK(checked.error().message.find("rounding to codes cannot be undone") != std::string::npos);
    const std::vector<std::int8_t> bytes(coded_rows * coded_cols, 3);
    const checkpoint int8 =
        quantized_checkpoint(folder / "int8", {raw_tensor("up.weight", dtype::i8, {coded_rows, coded_cols}, bytes),
                                               raw_tensor("up.weight_scale", dtype::f32, {}, std::vector<float>{1})});
    const auto refused = merge_checkpoint(int8, adapter, folder / "out");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::unsupported);
    CHECK(refused.error().message.find("is quantized (I8 codes with scales)") != std::string::npos);
}

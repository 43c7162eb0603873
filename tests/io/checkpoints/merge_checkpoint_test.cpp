// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/peft/kinds/rotations/oft.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::failing_disk;
using lowrank_tests::killed_after;
using lowrank_tests::killing_disk;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

row_matrix<float> normals(Eigen::Index rows, Eigen::Index cols, std::uint64_t seed) {
    row_matrix<float> w(rows, cols);
    const philox random(seed);
    for (Eigen::Index i = 0; i < w.size(); ++i) {
        w.data()[i] = random.normal<float>(static_cast<std::uint64_t>(i));
    }
    return w;
}

lora_adapter<float> trained(Eigen::Index out, Eigen::Index in, std::uint64_t seed) {
    auto a = make_lora<float>(out, in, {.r = 2, .lora_alpha = 4, .seed = seed});
    a.lora_B = normals(out, 2, seed + 100);
    return a;
}

/// Two shards with a weight of each storage type, a table, and what stays as it is.
checkpoint write_base(const temporary_folder& folder) {
    const auto w = normals(10, 6, 1);
    REQUIRE(write_safetensors(folder / "model-1.safetensors",
                              {tensor_of("a.weight", row_matrix<bfloat16>(w.cast<bfloat16>())),
                               tensor_of("b.weight", row_matrix<half>(w.cast<half>())), tensor_of("norm.weight", w)},
                              {{"format", "pt"}}));
    REQUIRE(write_safetensors(folder / "model-2.safetensors",
                              {tensor_of("c.weight", w), tensor_of("d.weight", row_matrix<double>(w.cast<double>())),
                               tensor_of("table.weight", normals(20, 6, 2)), tensor_of("head.weight", w)},
                              {{"format", "pt"}}));
    REQUIRE(write_file(folder / "model.safetensors.index.json",
                       R"({"weight_map":{"a.weight":"model-1.safetensors","b.weight":"model-1.safetensors",)"
                       R"("norm.weight":"model-1.safetensors","c.weight":"model-2.safetensors",)"
                       R"("d.weight":"model-2.safetensors","table.weight":"model-2.safetensors",)"
                       R"("head.weight":"model-2.safetensors"}})"));
    const auto base = checkpoint::open(folder.path());
    REQUIRE(base);
    return *base;
}

peft_adapter adapter_for_all() {
    peft_adapter out;
    for (const char* name : {"a", "b", "c", "d"}) {
        out.modules[name] = trained(10, 6, static_cast<std::uint64_t>(name[0]));
    }
    out.modules["table"] = peft_lora{.lora = trained(6, 20, 7), .is_table = true};
    out.modules["head.weight"] =
        whole_tensor{tensor_of("base_model.model.head.weight", row_matrix<float>(row_matrix<float>::Ones(10, 6)))};
    out.config = peft_config_for(out.modules);
    return out;
}

}  // namespace

TEST_CASE("a sharded checkpoint of mixed types is merged tile by tile") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    const peft_adapter adapter = adapter_for_all();
    for (const std::size_t tile : {std::size_t{1}, std::size_t{100}, std::size_t{1} << 20}) {
        const auto report = merge_checkpoint(base, adapter, folder / "out", {.tile_bytes = tile});
        REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
        CHECK(report->weights.size() == 5);
        CHECK(report->weights.at("a.weight").entries == 60);
        CHECK(report->weights.at("d.weight").relative_error < 1e-12);
        CHECK(report->weights.at("a.weight").relative_error > 1e-5);
        CHECK(report->replaced == std::vector<std::string>{"head.weight"});
        const auto merged = checkpoint::open(folder / "out");
        REQUIRE_MESSAGE(merged, (merged ? std::string() : merged.error().message));
        REQUIRE(merged->tensors().size() == base.tensors().size());
        for (const auto& entry : adapter.modules) {
            const std::string& name = entry.first;
            if (stored_tensor(entry.second) != nullptr || is_table_module(entry.second)) {
                continue;
            }
            const auto& lora = lora_of(entry.second);
            const auto tensor = name + ".weight";
            CHECK(merged->find(tensor)->type == base.find(tensor)->type);
            const row_matrix<double> want =
                *base.matrix<double>(tensor) + 2.0 * lora.lora_B.cast<double>() * lora.lora_A.cast<double>();
            const auto got = merged->matrix<double>(tensor);
            const double unit = name == "a" ? 0x1p-8 : name == "b" ? 0x1p-11 : name == "c" ? 0x1p-23 : 1e-7;
            CHECK_MESSAGE(((want - *got).array().abs() <= want.array().abs() * unit * 1.01 + 1e-6).all(), name);
        }
        const auto& table = lora_of(adapter.modules.at("table"));
        CHECK((*merged->matrix<float>("table.weight") - *base.matrix<float>("table.weight") -
               (2.0F * table.lora_B * table.lora_A).transpose())
                  .norm() < 1e-4F);
        CHECK(*merged->matrix<float>("norm.weight") == *base.matrix<float>("norm.weight"));
        CHECK(*merged->matrix<float>("head.weight") == row_matrix<float>::Ones(10, 6));
    }
}

TEST_CASE("the size of the tile and a strength of zero change nothing that they should not") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    peft_adapter adapter = adapter_for_all();
    adapter.modules.erase("head.weight");
    REQUIRE(merge_checkpoint(base, adapter, folder / "small", {.tile_bytes = 1}));
    REQUIRE(merge_checkpoint(base, adapter, folder / "large"));
    REQUIRE(merge_checkpoint(base, adapter, folder / "zero", {.strength = 0}));
    for (const char* name : {"model-1.safetensors", "model-2.safetensors"}) {
        CHECK(text_of(folder / "small" / name) == text_of(folder / "large" / name));
        CHECK(text_of(folder / "zero" / name) == text_of(folder / name));
        CHECK(text_of(folder / "large" / name) != text_of(folder / name));
    }
}

TEST_CASE("threads, tiles and checks give the same bytes and the same audit") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    const peft_adapter adapter = adapter_for_all();
    const executor backwards = [](Eigen::Index n, const task& body) {
        for (Eigen::Index i = n; i-- > 0;) {
            body(i);
        }
    };
    const auto one = merge_checkpoint(base, adapter, folder / "one", {.tile_bytes = 400});
    const auto two = merge_checkpoint(base, adapter, folder / "two", {.tile_bytes = 400, .exec = backwards});
    const auto checked = merge_checkpoint(base, adapter, folder / "checked", {.tile_bytes = 400, .check = true});
    REQUIRE(one);
    REQUIRE(two);
    REQUIRE(checked);
    for (const char* name : {"model-1.safetensors", "model-2.safetensors"}) {
        CHECK(text_of(folder / "one" / name) == text_of(folder / "two" / name));
        CHECK(text_of(folder / "one" / name) == text_of(folder / "checked" / name));
    }
    for (const auto& entry : one->weights) {
        CHECK(entry.second.relative_error == two->weights.at(entry.first).relative_error);
        CHECK(entry.second.change_norm == checked->weights.at(entry.first).change_norm);
        CHECK(entry.second.worst_error == checked->weights.at(entry.first).worst_error);
        CHECK(checked->weights.at(entry.first).receipt_bits_per_weight > 0);
    }
    const auto& c = lora_of(adapter.modules.at("c"));
    CHECK(one->weights.at("c.weight").change_norm ==
          doctest::Approx((2.0F * c.lora_B * c.lora_A).norm()).epsilon(1e-6));
}

TEST_CASE("a killed merge goes on where it stopped and ends with the same bytes") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    const peft_adapter adapter = adapter_for_all();
    const auto whole = merge_checkpoint(base, adapter, folder / "whole");
    REQUIRE(whole);
    std::uint64_t total = 0;
    for (const char* name : {"model-1.safetensors", "model-2.safetensors"}) {
        total += std::filesystem::file_size(folder / "whole" / name);
    }
    Eigen::Index kept_most = 0;
    for (std::uint64_t room = 20; room < total + 1500; room += 150) {
        const auto out = folder / ("out" + std::to_string(room));
        killed_after(room, [&](killing_disk& disk) {
            return merge_checkpoint(base, adapter, out, {.resume = true, .write = {.calls = &disk}}).has_value();
        });
        const auto again = merge_checkpoint(base, adapter, out, {.resume = true});
        REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
        kept_most = std::max(kept_most, again->kept_files);
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(out)) {
            names.push_back(entry.path().filename().string());
        }
        CHECK(names.size() == 3);  // no journal and no temporary file is left
        for (const char* name : {"model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"}) {
            CHECK(text_of(out / name) == text_of(folder / "whole" / name));
        }
        REQUIRE(again->weights.size() == whole->weights.size());
        CHECK(again->weights.at("a.weight").relative_error == whole->weights.at("a.weight").relative_error);
        CHECK(again->weights.at("a.weight").unchanged == whole->weights.at("a.weight").unchanged);
        CHECK(again->replaced == whole->replaced);
        std::filesystem::remove_all(out);
    }
    CHECK(kept_most == 2);
}

TEST_CASE("what was begun is not mixed with other inputs, nor with damaged files") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    peft_adapter adapter = adapter_for_all();
    REQUIRE(merge_checkpoint(base, adapter, folder / "whole"));
    failing_disk disk;
    disk.room = std::filesystem::file_size(folder / "whole" / "model-1.safetensors") + 1200;
    const auto begun = merge_checkpoint(base, adapter, folder / "out", {.resume = true, .write = {.calls = &disk}});
    REQUIRE_FALSE(begun);
    REQUIRE(std::filesystem::exists(folder / "out" / "model-1.safetensors"));
    lora_of(adapter.modules["a"]).lora_B(0, 0) += 1;
    const auto other = merge_checkpoint(base, adapter, folder / "out", {.resume = true});
    REQUIRE_FALSE(other);
    CHECK_MESSAGE(other.error().code == errc::mismatch, other.error().message);
    adapter.modules["a"] = adapter_for_all().modules["a"];
    const std::string text = text_of(folder / "out" / "model-1.safetensors");
    REQUIRE(write_file(folder / "out" / "model-1.safetensors", text.substr(0, text.size() - 1)));
    const auto again = merge_checkpoint(base, adapter, folder / "out", {.resume = true});
    REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
    CHECK(again->kept_files == 0);
    CHECK(text_of(folder / "out" / "model-1.safetensors") == text_of(folder / "whole" / "model-1.safetensors"));
}

TEST_CASE("a merge is not continued with another option of its adapter") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    const auto turned = [](bool coft, bool neumann, lowrank::index terms) {
        oft_adapter<float> oft{.oft_R = matrix<float>::Constant(3, 1, 0.3F), .in = 6};
        oft.coft = coft;
        oft.use_cayley_neumann = neumann;
        oft.num_cayley_neumann_terms = terms;
        peft_adapter adapter;
        adapter.modules["a"] = oft;
        return adapter;
    };
    REQUIRE(merge_checkpoint(base, turned(false, true, 5), folder / "whole"));
    failing_disk disk;
    disk.room = std::filesystem::file_size(folder / "whole" / "model-1.safetensors") + 1200;
    REQUIRE_FALSE(
        merge_checkpoint(base, turned(false, true, 5), folder / "out", {.resume = true, .write = {.calls = &disk}}));
    for (const auto& other : {turned(true, true, 5), turned(false, false, 5), turned(false, true, 4)}) {
        const auto refused = merge_checkpoint(base, other, folder / "out", {.resume = true});
        REQUIRE_FALSE(refused);
        CHECK_MESSAGE(refused.error().code == errc::mismatch, refused.error().message);
    }
    CHECK(merge_checkpoint(base, turned(false, true, 5), folder / "out", {.resume = true})->kept_files == 1);
}

TEST_CASE("what does not fit is refused before anything is written") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    const auto refused = [&](errc code, const peft_adapter& adapter) {
        const auto report = merge_checkpoint(base, adapter, folder / "out");
        REQUIRE_FALSE(report);
        CHECK_MESSAGE(report.error().code == code, report.error().message);
        CHECK_FALSE(std::filesystem::exists(folder / "out"));
    };
    peft_adapter adapter;
    adapter.modules["x"] = trained(10, 6, 1);
    refused(errc::mismatch, adapter);
    adapter.modules.clear();
    adapter.modules["a"] = trained(6, 10, 1);
    refused(errc::mismatch, adapter);
    adapter.modules.clear();
    adapter.modules["head.weight"] =
        whole_tensor{tensor_of("base_model.model.head.weight", row_matrix<float>(row_matrix<float>::Ones(1, 1)))};
    refused(errc::mismatch, adapter);
    adapter.modules.clear();
    adapter.modules["a"] = trained(10, 6, 1);
    const auto same = merge_checkpoint(base, adapter, folder.path());
    REQUIRE_FALSE(same);
    CHECK(same.error().message.find("another folder") != std::string::npos);
    CHECK(checkpoint::open(folder.path()));
}

TEST_CASE("a full disk or an overflow leaves no half-written file") {
    temporary_folder folder;
    const checkpoint base = write_base(folder);
    peft_adapter adapter = adapter_for_all();
    failing_disk disk;
    disk.room = 900;
    const auto full = merge_checkpoint(base, adapter, folder / "out", {.write = {.calls = &disk}});
    REQUIRE_FALSE(full);
    CHECK(full.error().message.find("disk is full") != std::string::npos);
    CHECK(disk.live.empty());
    CHECK_FALSE(std::filesystem::exists(folder / "out" / "model.safetensors.index.json"));
    for (const auto& entry : std::filesystem::directory_iterator(folder / "out")) {
        CHECK(safetensors_file::open(entry.path()));  // a shard is there whole or not at all
    }
    lora_of(adapter.modules["b"]).lora_B.setConstant(1e9F);  // beyond f16
    lora_of(adapter.modules["b"]).lora_A.setOnes();
    const auto overflow = merge_checkpoint(base, adapter, folder / "other");
    REQUIRE_FALSE(overflow);
    CHECK(overflow.error().code == errc::non_finite);
    CHECK(overflow.error().message.find("b.weight") != std::string::npos);
    CHECK(std::filesystem::is_empty(folder / "other"));
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/edit_checkpoint.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::failing_disk;
using lowrank_tests::killed_after;
using lowrank_tests::killing_disk;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

row_matrix<float> numbers_from(float first) {
    return row_matrix<float>::NullaryExpr(
        4, 5, [&](Eigen::Index i, Eigen::Index j) { return first + static_cast<float>(5 * i + j) / 32; });
}

/// Two files with two weights each and a tensor of integers.
checkpoint two_files(const temporary_folder& folder) {
    std::filesystem::create_directory(folder / "base");
    tensor_to_write ids = tensor_of("ids", numbers_from(9));
    ids.type = dtype::i32;
    REQUIRE(write_safetensors(folder / "base" / "model-1.safetensors",
                              {tensor_of("a.weight", numbers_from(1)), tensor_of("b.weight", numbers_from(2)), ids},
                              {{"format", "pt"}}));
    REQUIRE(write_safetensors(folder / "base" / "model-2.safetensors",
                              {tensor_of("c.weight", numbers_from(3)), tensor_of("d.weight", numbers_from(4))}));
    REQUIRE(write_file(folder / "base" / "model.safetensors.index.json",
                       R"({"weight_map":{"a.weight":"model-1.safetensors","b.weight":"model-1.safetensors",)"
                       R"("ids":"model-1.safetensors","c.weight":"model-2.safetensors",)"
                       R"("d.weight":"model-2.safetensors"}})"));
    auto base = checkpoint::open(folder / "base");
    REQUIRE(base);
    return *base;
}

bool is_weight(const tensor_info& t) { return t.name.ends_with(".weight"); }

/// Doubles every number and tells the sum of what was there.
result<std::vector<double>> doubled(const tensor_info&, std::span<std::byte> bytes) {
    std::vector<float> x(bytes.size() / sizeof(float));
    std::memcpy(x.data(), bytes.data(), bytes.size());
    double sum = 0;
    for (float& v : x) {
        sum += static_cast<double>(v);
        v *= 2;
    }
    std::memcpy(bytes.data(), x.data(), bytes.size());
    return std::vector<double>{sum, 1.0 / 3.0};
}

}  // namespace

TEST_CASE("chosen tensors change, all else is the same bytes") {
    temporary_folder folder;
    const checkpoint base = two_files(folder);
    Eigen::Index latest = -1;
    const auto report =
        edit_checkpoint(base, folder / "out", is_weight, doubled, {.on_progress = [&](const progress& p) {
                            CHECK(p.total == 400);
                            CHECK(p.done > latest);
                            latest = p.done;
                            return true;
                        }});
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    CHECK(latest == 320);
    CHECK(report->edited.size() == 4);
    CHECK(report->edited.at("a.weight") == std::vector<double>{20 + 190.0 / 32, 1.0 / 3.0});
    const auto out = checkpoint::open(folder / "out");
    REQUIRE(out);
    CHECK(out->shards().size() == 2);
    CHECK(out->matrix<float>("d.weight").value() == 2 * numbers_from(4));
    CHECK(std::ranges::equal(*out->bytes("ids"), *base.bytes("ids")));
    CHECK(out->shards()[0].file.metadata().at("format") == "pt");
    CHECK(out->shards()[1].file.metadata().empty());
}

TEST_CASE("a killed edit goes on, makes no edit again that was finished, and ends with the same bytes") {
    temporary_folder folder;
    const checkpoint base = two_files(folder);
    const auto whole = edit_checkpoint(base, folder / "whole", is_weight, doubled);
    REQUIRE(whole);
    Eigen::Index kept_files = 0;
    Eigen::Index kept_edits = 0;
    std::uint64_t room = 40;
    for (bool killed = true; killed; room += room / 6) {
        const auto out = folder / "out";
        killed = killed_after(room, [&](killing_disk& disk) {
            return edit_checkpoint(base, out, is_weight, doubled, {.resume = true, .write = {.calls = &disk}})
                .has_value();
        });
        Eigen::Index made = 0;
        const auto again = edit_checkpoint(base, out, is_weight,
                                           [&](const tensor_info& t, std::span<std::byte> bytes) {
                                               ++made;
                                               return doubled(t, bytes);
                                           },
                                           {.resume = true});
        REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
        CHECK(made + again->kept_edits + 2 * again->kept_files == 4);
        CHECK(again->edited == whole->edited);
        kept_files = std::max(kept_files, again->kept_files * (killed ? 1 : 0));
        kept_edits = std::max(kept_edits, again->kept_edits);
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(out)) {
            names.push_back(entry.path().filename().string());
            CHECK(text_of(entry.path()) == text_of(folder / "whole" / names.back()));
        }
        CHECK(names.size() == 3);  // no journal, no part and no temporary file is left
        std::filesystem::remove_all(out);
    }
    CHECK(kept_files >= 1);
    CHECK(kept_edits == 2);
}

TEST_CASE("what was begun is not mixed with other edits; a damaged part is made again") {
    temporary_folder folder;
    const checkpoint base = two_files(folder);
    failing_disk disk;
    disk.room = 1100;
    REQUIRE_FALSE(edit_checkpoint(base, folder / "out", is_weight, doubled,
                                  {.resume = true, .edits = 1, .write = {.calls = &disk}}));
    const auto part = folder / "out" / "lowrank-part-model-1.safetensors-0.safetensors";
    REQUIRE(std::filesystem::exists(part));
    const auto other = edit_checkpoint(base, folder / "out", is_weight, doubled, {.resume = true, .edits = 2});
    REQUIRE_FALSE(other);
    CHECK_MESSAGE(other.error().code == errc::mismatch, other.error().message);
    REQUIRE(write_file(part, text_of(part).substr(1)));
    const auto again = edit_checkpoint(base, folder / "out", is_weight, doubled, {.resume = true, .edits = 1});
    REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
    CHECK(again->edited.size() == 4);
    CHECK(checkpoint::open(folder / "out")->matrix<float>("a.weight").value() == 2 * numbers_from(1));
}

TEST_CASE("failures of an edit name the tensor, and the base is never the target") {
    temporary_folder folder;
    const checkpoint base = two_files(folder);
    const auto failed = edit_checkpoint(base, folder / "out", is_weight, [](const tensor_info&, std::span<std::byte>) {
        return result<std::vector<double>>(status{errc::non_finite, "no"});
    });
    REQUIRE_FALSE(failed);
    CHECK(failed.error().message.find("a.weight") != std::string::npos);
    CHECK(std::filesystem::is_empty(folder / "out"));
    const auto same = edit_checkpoint(base, folder / "base", is_weight, doubled);
    REQUIRE_FALSE(same);
    CHECK(same.error().message.find("another folder") != std::string::npos);
    const auto stopped = edit_checkpoint(base, folder / "out", is_weight, doubled,
                                         {.on_progress = [](const progress&) { return false; }});
    REQUIRE_FALSE(stopped);
    CHECK(stopped.error().code == errc::cancelled);
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/safetensors_writer.hpp>

#include <string>
#include <vector>

#include <lowrank/io/containers/safetensors.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::failing_disk;
using lowrank_tests::safetensors_text;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

TEST_CASE("the bytes are those of the reference writer") {
    // By hand from its rules: larger types first, then names; compact JSON; spaces to a multiple of eight.
    temporary_folder folder;
    const std::vector<std::byte> bytes(64);
    const auto tensor = [&](const char* name, dtype type, std::vector<std::uint64_t> shape, std::size_t size) {
        return tensor_to_write{
            .name = name, .type = type, .shape = std::move(shape), .bytes = std::span(bytes).first(size)};
    };
    REQUIRE(write_safetensors(
        folder / "f",
        {tensor("b", dtype::f32, {2}, 8), tensor("a", dtype::f16, {1, 3}, 6), tensor("B", dtype::f32, {}, 4),
         tensor("q\"\n", dtype::i64, {0, 5}, 0), tensor("m", dtype::bf16, {1}, 2)},
        {{"format", "pt"}, {"a", "b"}}));
    std::string header = R"({"__metadata__":{"a":"b","format":"pt"},)"
                         R"("q\"\n":{"dtype":"I64","shape":[0,5],"data_offsets":[0,0]},)"
                         R"("B":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                         R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},)"
                         R"("m":{"dtype":"BF16","shape":[1],"data_offsets":[12,14]},)"
                         R"("a":{"dtype":"F16","shape":[1,3],"data_offsets":[14,20]}})";
    header.append((8 - header.size() % 8) % 8, ' ');
    CHECK(text_of(folder / "f") == safetensors_text(header, std::string(20, '\0')));

    REQUIRE(write_safetensors(folder / "empty", {}));
    CHECK(text_of(folder / "empty") == safetensors_text("{}      "));
}

TEST_CASE("real files written by the reference implementation come out the same") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    int files = 0;
    for (const char* where : {"adapters", "models"}) {
        for (const auto& entry : std::filesystem::recursive_directory_iterator(shared / where)) {
            if (entry.path().extension() != ".safetensors") {
                continue;
            }
            const auto file = safetensors_file::open(entry.path());
            REQUIRE(file);
            std::vector<tensor_to_write> tensors;
            for (const auto& t : file->tensors()) {
                tensors.insert(tensors.begin(), tensor_of(*file, t));
            }
            REQUIRE(write_safetensors(folder / "copy", tensors, file->metadata()));
            CHECK_MESSAGE(text_of(folder / "copy") == text_of(entry.path()), entry.path().string());
            ++files;
        }
    }
    CHECK(files > 0);
}

TEST_CASE_TEMPLATE("matrices of any order and stride are written row by row", S, float, double) {
    temporary_folder folder;
    matrix<S> columns(3, 2);
    columns << S(1), S(2), S(3), S(4), S(5), S(6);
    const row_matrix<S> rows = columns;
    lowrank::vector<S> v(2);
    v << S(7), S(8);
    REQUIRE(write_safetensors(
        folder / "f", {tensor_of("columns", columns), tensor_of("rows", rows), tensor_of("block", columns.topRows(2)),
                       tensor_of("v", v), tensor_of("none", matrix<S>(0, 3)),
                       borrowed_tensor<S>("borrowed", const_weight_view<S>(rows))}));
    const auto file = safetensors_file::open(folder / "f");
    REQUIRE(file);
    CHECK(*file->matrix<S>("columns") == rows);
    CHECK(*file->matrix<S>("rows") == rows);
    CHECK(*file->matrix<S>("borrowed") == rows);
    CHECK(*file->matrix<S>("block") == rows.topRows(2));
    CHECK(*file->vector<S>("v") == v);
    CHECK(file->matrix<S>("none")->rows() == 0);
    CHECK(file->matrix<S>("none")->cols() == 3);
    CHECK(file->find("rows")->shape == std::vector<std::uint64_t>{3, 2});
    CHECK_THROWS_AS((void)borrowed_tensor<S>("x", const_weight_view<S>(rows.data(), 2, 1, 2)), contract_violation);
}

TEST_CASE("a stream of pieces gives the same file as one write") {
    temporary_folder folder;
    row_matrix<float> a = row_matrix<float>::Constant(5, 7, 1.5F);
    lowrank::vector<double> b = lowrank::vector<double>::LinSpaced(9, 0, 1);
    const auto ta = tensor_of("a", a);
    const auto tb = tensor_of("b", b);
    REQUIRE(write_safetensors(folder / "once", {ta, tb}));
    auto file = safetensors_writer::create(folder / "stream", {{"a", ta.type, ta.shape}, {"b", tb.type, tb.shape}});
    REQUIRE(file);
    REQUIRE(file->order().size() == 2);
    for (const auto& t : file->order()) {
        const auto bytes = t.name == "a" ? ta.bytes : tb.bytes;
        for (std::size_t at = 0; at < bytes.size(); at += 4) {
            REQUIRE(file->write(bytes.subspan(at, 4)));
        }
    }
    CHECK_THROWS_AS((void)file->write(ta.bytes), contract_violation);
    REQUIRE(file->commit());
    CHECK(text_of(folder / "once") == text_of(folder / "stream"));

    auto half = safetensors_writer::create(folder / "half", {{"a", ta.type, ta.shape}});
    REQUIRE(half);
    CHECK_THROWS_AS((void)half->commit(), contract_violation);
}

TEST_CASE("what no reader would accept is not written") {
    temporary_folder folder;
    const auto named = [](std::string name) { return tensor_to_write{.name = std::move(name), .shape = {0}}; };
    CHECK(write_safetensors(folder / "f", {named("a"), named("a")}).message.find("two tensors") != std::string::npos);
    CHECK_FALSE(write_safetensors(folder / "f", {named("__metadata__")}));
    CHECK_FALSE(write_safetensors(folder / "f", {named("\xFF")}));
    CHECK_FALSE(write_safetensors(folder / "f", {}, {{"k", "\xFF"}}));
    CHECK_FALSE(write_safetensors(folder / "f", {{.name = "x", .type = dtype::f4, .shape = {1}}}));
    CHECK_FALSE(write_safetensors(folder / "f", {{.name = "x", .shape = {UINT64_MAX, 2}}}));
    CHECK_FALSE(write_safetensors(folder / "f", {}, {{"k", std::string(100'000'000, 'x')}}));
    CHECK_THROWS_AS((void)write_safetensors(folder / "f", {{.name = "x", .shape = {1}}}), contract_violation);
    CHECK(folder.listing().empty());
}

TEST_CASE("a full disk leaves the old file") {
    temporary_folder folder;
    REQUIRE(write_safetensors(folder / "f", {}));
    const std::string old = text_of(folder / "f");
    for (const std::uint64_t room : {0U, 7U, 60U, 100U}) {
        failing_disk disk;
        disk.room = room;
        const row_matrix<float> w = row_matrix<float>::Zero(10, 10);
        const status why = write_safetensors(folder / "f", {tensor_of("w", w)}, {}, {.calls = &disk});
        CHECK(why.message.find("disk is full") != std::string::npos);
        CHECK(text_of(folder / "f") == old);
        CHECK(folder.listing().size() == 1);
    }
}

// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/gguf_writer.hpp>

#include <string>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/gguf.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::failing_disk;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

TEST_CASE("real files are written again with the same bytes") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    int files = 0;
    for (const auto& where : {shared / "models" / "gguf", shared / "adapters" / "stories260K" / "gguf"}) {
        for (const auto& entry : std::filesystem::directory_iterator(where)) {
            const auto file = gguf_file::open(entry.path());
            REQUIRE(file);
            std::vector<gguf_tensor_to_write> tensors;
            for (const gguf_tensor& t : file->tensors()) {
                tensors.push_back({t.name, t.type, t.ne, file->bytes(t)});
            }
            REQUIRE(write_gguf(folder / "copy", file->entries(), tensors));
            CHECK_MESSAGE(text_of(folder / "copy") == text_of(entry.path()), entry.path().string());
            ++files;
        }
    }
    CHECK(files > 0);
}

TEST_CASE("values of every type survive") {
    temporary_folder folder;
    const std::vector<gguf_entry> entries = {
        {"s", gguf_value::of("text")},
        {"f", gguf_value::of(0.5F)},
        {"u", gguf_value::of(7U)},
        {"b", gguf_value::of(true)},
        {"i64", {.type = gguf_type::i64, .bits = UINT64_MAX}},
        {"i8", {.type = gguf_type::i8, .bits = 0x80}},
        {"d", {.type = gguf_type::f64, .bits = 0x3ff0000000000000}},
        {"numbers", {.type = gguf_type::array, .element = gguf_type::u16, .elements = std::vector<std::byte>(6)}},
        {"words", {.type = gguf_type::array, .element = gguf_type::string, .texts = {"", "a"}}},
        {"none", {.type = gguf_type::array, .element = gguf_type::f32}},
        {"general.alignment", gguf_value::of(64U)},
    };
    const matrix<float> w = matrix<float>::Ones(3, 5);
    REQUIRE(write_gguf(folder / "f", entries, {gguf_tensor_of("w", w), gguf_tensor_of("v", w)}));
    const auto file = gguf_file::open(folder / "f");
    REQUIRE_MESSAGE(file, (file ? std::string() : file.error().message));
    CHECK(file->entries() == entries);
    CHECK(file->tensors()[1].offset == 64);
    CHECK(*file->matrix<float>("v") == w);
}

TEST_CASE("what the reader would refuse is not left behind") {
    temporary_folder folder;
    const matrix<float> w = matrix<float>::Ones(1, 32);
    CHECK_FALSE(write_gguf(folder / "f", {{"", gguf_value::of(1U)}}, {}));
    CHECK_FALSE(write_gguf(folder / "f", {{"a", gguf_value::of(1U)}, {"a", gguf_value::of(2U)}}, {}));
    CHECK_FALSE(write_gguf(folder / "f", {{"general.alignment", gguf_value::of(24U)}}, {gguf_tensor_of("w", w)}));
    CHECK_FALSE(write_gguf(folder / "f", {}, {gguf_tensor_of(std::string(64, 'n'), w)}));
    CHECK_FALSE(write_gguf(folder / "f", {}, {gguf_tensor_of("w", w), gguf_tensor_of("w", w)}));
    CHECK_FALSE(write_gguf(folder / "f", {}, {{.name = "w", .ne = {0}}}));
    CHECK_FALSE(write_gguf(folder / "f", {}, {{.name = "w", .type = static_cast<ggml_type>(5), .ne = {1}}}));
    CHECK(folder.listing().empty());
    CHECK_THROWS_AS((void)write_gguf(folder / "f", {}, {{.name = "w", .ne = {4}}}), contract_violation);
    CHECK_THROWS_AS((void)gguf_tensor_of("w", matrix<float>(matrix<float>::Ones(2, 33)), ggml_type::q8_0),
                    contract_violation);
}

TEST_CASE("a full disk leaves the old file") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "f", "old"));
    const matrix<float> w = matrix<float>::Ones(8, 8);
    for (const std::uint64_t room : {0U, 10U, 100U, 300U}) {
        failing_disk disk;
        disk.room = room;
        const status why = write_gguf(folder / "f", {}, {gguf_tensor_of("w", w)}, {.calls = &disk});
        CHECK(why.message.find("disk is full") != std::string::npos);
        CHECK(text_of(folder / "f") == "old");
        CHECK(folder.listing().size() == 1);
    }
}

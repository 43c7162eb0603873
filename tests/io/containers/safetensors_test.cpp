// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/safetensors.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::bytes_of;
using lowrank_tests::safetensors_text;
using lowrank_tests::temporary_folder;

namespace {

/// Bytes of a stored scalar, one after the other.
template <class T>
std::string raw(std::initializer_list<T> values) {
    return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

safetensors_file opened(std::string_view header, std::string_view data) {
    auto file = safetensors_file::from_bytes(bytes_of(safetensors_text(header, data)));
    REQUIRE_MESSAGE(file, (file ? std::string() : file.error().message));
    return *file;
}

}  // namespace

TEST_CASE("a tensor can be viewed in place and converted") {
    std::string header = R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";
    header.append((8 - header.size() % 8) % 8, ' ');
    const auto file = opened(header, raw({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}));
    const auto view = file.view<float>("w");
    REQUIRE(view);
    CHECK(view->rows() == 2);
    CHECK(view->cols() == 3);
    CHECK((*view)(1, 0) == 4);
    CHECK(reinterpret_cast<const std::byte*>(view->data()) == file.bytes(*file.find("w")).data());
    CHECK((*file.matrix<double>("w"))(1, 2) == 6);

    const auto wrong = file.view<bfloat16>("w");
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().code == errc::mismatch);
    CHECK(file.view<float>("v").error().code == errc::not_found);
    CHECK(file.matrix<float>("v").error().code == errc::not_found);
    CHECK(file.vector<float>("v").error().code == errc::not_found);
    CHECK(file.vector<float>("w").error().code == errc::mismatch);
    CHECK(file.find("") == nullptr);
}

TEST_CASE("vectors are columns, scalars are 1 x 1, more dimensions are refused") {
    const auto file = opened(R"({"v":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
                             R"("s":{"dtype":"F32","shape":[],"data_offsets":[12,16]},)"
                             R"("t":{"dtype":"F32","shape":[1,2,1],"data_offsets":[16,24]},)"
                             R"("e":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[24,24]}})",
                             raw({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}));
    CHECK(file.matrix<float>("v")->rows() == 3);
    CHECK(file.matrix<float>("v")->cols() == 1);
    CHECK((*file.vector<double>("v"))(2) == 3);
    CHECK((*file.matrix<float>("s"))(0, 0) == 4);
    CHECK((*file.vector<float>("s"))(0) == 4);
    CHECK(file.matrix<float>("t").error().message.find("[1, 2, 1]") != std::string::npos);
    CHECK(file.view<float>("t").error().code == errc::unsupported);
    CHECK(file.matrix<float>("e").error().code == errc::unsupported);
    CHECK(file.bytes(*file.find("t")).size() == 8);
}

TEST_CASE("data that start unaligned are copied by matrix and refused by view") {
    std::string header = R"({"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
    header.append((8 - header.size() % 8) % 8 + 1, ' ');  // now the data start one byte after a multiple of eight
    const auto file = opened(header, raw({1.5F, -2.0F}));
    const auto view = file.view<float>("w");
    REQUIRE_FALSE(view);
    CHECK(view.error().message.find("matrix<float>()") != std::string::npos);
    CHECK((*file.matrix<float>("w"))(0, 1) == -2);
    CHECK((*file.matrix<double>("w"))(0, 0) == 1.5);
}

TEST_CASE("integer types are readable as bytes and not as weights") {
    const auto file = opened(R"({"i":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})", "abcd");
    const auto m = file.matrix<float>("i");
    REQUIRE_FALSE(m);
    CHECK(m.error().code == errc::unsupported);
    CHECK(m.error().message.find("I32") != std::string::npos);
    CHECK(file.vector<float>("i").error().code == errc::unsupported);
    CHECK(file.bytes(*file.find("i"))[3] == std::byte{'d'});
}

TEST_CASE("copies share the memory and keep it") {
    std::optional<safetensors_file> copy;
    {
        const auto file = opened(R"({"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})", raw({0.25}));
        copy = file;
        CHECK(copy->tensors().data() == file.tensors().data());
    }
    CHECK((*copy->matrix<double>("s"))(0, 0) == 0.25);
    CHECK((*copy->matrix<float>("s"))(0, 0) == 0.25F);
}

TEST_CASE("an open file keeps its bytes while a new one takes its name") {
    temporary_folder folder;
    const row_matrix<float> before = row_matrix<float>::Constant(4, 4, 1);
    const row_matrix<float> after = row_matrix<float>::Constant(4, 4, 2);
    REQUIRE(write_safetensors(folder / "f", {tensor_of("w", before)}));
    const auto file = safetensors_file::open(folder / "f");
    REQUIRE(file);
    REQUIRE(write_safetensors(folder / "f", {tensor_of("w", after)}));
    CHECK(*file->view<float>("w") == before);
    CHECK(*safetensors_file::open(folder / "f")->view<float>("w") == after);
}

TEST_CASE("errors of a file name the file") {
    temporary_folder folder;
    CHECK(safetensors_file::open(folder / "absent").error().code == errc::not_found);
    REQUIRE(write_file(folder / "broken.safetensors", "nonsense that is no header"));
    const auto file = safetensors_file::open(folder / "broken.safetensors");
    REQUIRE_FALSE(file);
    CHECK(file.error().message.find("broken.safetensors: ") != std::string::npos);
}

TEST_CASE("a tensor without elements does not have rows or columns without end") {
    temporary_folder folder;
    const auto empty = [](std::vector<std::uint64_t> shape) {
        tensor_to_write t{"w", dtype::f32, std::move(shape), {}};
        return t;
    };
    for (const auto& [shape, fits] :
         {std::pair(std::vector<std::uint64_t>{0, 4096}, true), std::pair(std::vector<std::uint64_t>{4096, 0}, true),
          std::pair(std::vector<std::uint64_t>{0, std::uint64_t{1} << 52}, false),
          std::pair(std::vector<std::uint64_t>{std::uint64_t{1} << 52, 0}, false)}) {
        REQUIRE(write_safetensors(folder / "f", {empty(shape)}));
        const auto file = safetensors_file::open(folder / "f");
        REQUIRE(file);
        const auto w = file->matrix<float>("w");
        CHECK(static_cast<bool>(w) == fits);
        if (!fits) {
            CHECK(w.error().code == errc::unsupported);
            CHECK_FALSE(file->view<float>("w"));
        }
    }
}
TEST_CASE("a real model opens, in memory and mapped") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto path = shared / "models" / "stories260K" / "model.safetensors";
    const auto mapped = safetensors_file::open(path);
    const auto read = safetensors_file::open(path, {.map = false});
    REQUIRE(mapped);
    REQUIRE(read);
    CHECK(mapped->metadata().at("format") == "pt");
    REQUIRE(mapped->tensors().size() == 47);
    for (const auto& t : mapped->tensors()) {
        const auto a = mapped->matrix<float>(t.name);
        const auto b = read->view<float>(t.name);
        REQUIRE(a);
        REQUIRE(b);
        CHECK(*a == *b);
    }
}

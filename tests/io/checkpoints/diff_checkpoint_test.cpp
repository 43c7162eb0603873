// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/diff_checkpoint.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("every way two checkpoints can differ is named and measured") {
    temporary_folder folder;
    row_matrix<float> w = row_matrix<float>::Constant(100, 200, 2);
    const vector<float> norm = vector<float>::Ones(3);
    row_matrix<float> nan = row_matrix<float>::Zero(1, 2);
    nan(0, 0) = std::numeric_limits<float>::quiet_NaN();
    REQUIRE(write_safetensors(folder / "a.safetensors",
                              {tensor_of("w", w), tensor_of("same", norm), tensor_of("gone", norm),
                               tensor_of("s", norm), tensor_of("t", norm), tensor_of("nan", nan)}));
    w(99, 199) = 5;
    w(0, 0) = 6;
    nan(0, 1) = 1;
    REQUIRE(write_safetensors(folder / "b.safetensors",
                              {tensor_of("w", w), tensor_of("same", norm), tensor_of("new", norm),
                               tensor_of("s", vector<float>(norm.head(2))),
                               tensor_of("t", vector<bfloat16>(norm.cast<bfloat16>())), tensor_of("nan", nan)}));
    const auto a = checkpoint::open(folder / "a.safetensors");
    const auto b = checkpoint::open(folder / "b.safetensors");
    REQUIRE(a);
    REQUIRE(b);
    const auto diff = diff_checkpoints(*a, *b);
    REQUIRE(diff);
    REQUIRE(diff->tensors.size() == 7);
    CHECK(diff->differing == 6);
    const auto& t = diff->tensors;  // gone nan new s same t w
    CHECK(t[0].kind == difference_kind::only_first);
    CHECK(t[1].kind == difference_kind::values);
    CHECK(t[1].changed == 1);
    CHECK(t[1].not_finite == 1);
    CHECK(std::isinf(t[1].relative()));
    CHECK(t[2].kind == difference_kind::only_second);
    CHECK(t[3].kind == difference_kind::shape);
    CHECK(t[4].kind == difference_kind::same);
    CHECK(t[5].kind == difference_kind::type);
    CHECK(t[5].changed == 0);
    CHECK(t[6].kind == difference_kind::values);
    CHECK(t[6].elements == 20000);
    CHECK(t[6].changed == 2);
    CHECK(t[6].largest == 4);
    CHECK(t[6].norm == doctest::Approx(5));
    CHECK(t[6].relative() == doctest::Approx(5 / (2 * std::sqrt(20000.0))));
    CHECK(diff_checkpoints(*a, *a)->differing == 0);
    const auto stopped = diff_checkpoints(*a, *b, {.on_progress = [](const progress&) { return false; }});
    CHECK(stopped.error().code == errc::cancelled);
}

TEST_CASE("changed elements of every type are counted, and a tensor that became NaN has no relative change") {
    temporary_folder folder;
    const auto write = [&](const char* name, std::uint8_t fill, float number) {
        std::vector<tensor_to_write> all;
        for (const dtype type :
             {dtype::boolean, dtype::u8, dtype::i8, dtype::i16, dtype::i32, dtype::u32, dtype::i64, dtype::u64,
              dtype::f8_e4m3, dtype::f8_e5m2, dtype::f8_e8m0, dtype::f4, dtype::f6_e2m3, dtype::c64}) {
            auto bytes = std::make_shared<std::vector<std::byte>>(8 * bits_of(type) / 8, static_cast<std::byte>(fill));
            all.push_back({std::string(name_of(type)), type, {8}, *bytes, bytes});
        }
        all.push_back(tensor_of("nan", vector<float>(vector<float>::Constant(8, number))));
        REQUIRE(write_safetensors(folder / name, std::move(all)));
        return *checkpoint::open(folder / name);
    };
    const auto a = write("a", 0, 1);
    const auto b = write("b", 0x11, std::numeric_limits<float>::quiet_NaN());
    const auto diff = diff_checkpoints(a, b);
    REQUIRE(diff);
    for (const auto& t : diff->tensors) {
        CHECK_MESSAGE(t.kind == difference_kind::values, t.name);
        CHECK_MESSAGE(t.elements == 8, t.name);
        CHECK_MESSAGE(t.changed == 8, t.name);
        CHECK_MESSAGE(t.has_values == (t.name != "F4" && t.name != "F6_E2M3" && t.name != "C64"), t.name);
        CHECK_MESSAGE((t.relative() == 0) == false, t.name);
    }
    CHECK(std::isnan(diff->tensors.back().relative()));  // "nan" sorts last
    CHECK(diff->tensors.back().not_finite == 8);
}

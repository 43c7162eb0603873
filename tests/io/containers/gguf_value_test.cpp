// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/gguf_value.hpp>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("values know their type and answer only to it") {
    CHECK(*gguf_value::of("text").as_string() == "text");
    CHECK(gguf_value::of("text").as_f32() == std::nullopt);
    CHECK(gguf_value::of(2.5F).as_f32() == 2.5F);
    CHECK(gguf_value::of(2.5F).as_string() == nullptr);
    CHECK(gguf_value::of(2.5F).as_count() == std::nullopt);
    CHECK(gguf_value::of(7U).as_count() == 7U);
    CHECK(gguf_value::of(true) == gguf_value{.type = gguf_type::boolean, .bits = 1});
    CHECK(gguf_value{.type = gguf_type::i16, .bits = 0x8000}.as_count() == std::nullopt);
    CHECK(gguf_value{.type = gguf_type::i16, .bits = 0x7fff}.as_count() == 0x7fffU);
    CHECK(gguf_value{.type = gguf_type::i64, .bits = UINT64_MAX}.as_count() == std::nullopt);
    CHECK(gguf_value{.type = gguf_type::u64, .bits = UINT64_MAX}.as_count() == UINT64_MAX);
}

TEST_CASE("scalar types have sizes, others have none") {
    CHECK(size_of(gguf_type::boolean) == 1);
    CHECK(size_of(gguf_type::i16) == 2);
    CHECK(size_of(gguf_type::f32) == 4);
    CHECK(size_of(gguf_type::f64) == 8);
    CHECK(size_of(gguf_type::string) == 0);
    CHECK(size_of(gguf_type::array) == 0);
    CHECK(size_of(static_cast<gguf_type>(13)) == 0);
    CHECK(size_of(static_cast<gguf_type>(-1)) == 0);
}

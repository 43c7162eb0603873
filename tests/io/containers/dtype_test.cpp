// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/dtype.hpp>

#include <array>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>

using namespace lowrank;

TEST_CASE("every dtype is found under its exact name") {
    for (std::size_t i = 0; i < detail::dtype_table.size(); ++i) {
        const auto type = static_cast<dtype>(i);
        CHECK(dtype_named(name_of(type)) == type);
        CHECK((bits_of(type) == 4 || bits_of(type) == 6 || bits_of(type) % 8 == 0));
    }
    for (const char* wrong : {"", "f32", "F32 ", "FLOAT", "F8", "BFLOAT16"}) {
        CHECK_FALSE(dtype_named(wrong));
    }
    CHECK(bits_of(dtype::f4) == 4);
    CHECK(bits_of(dtype::c64) == 64);
    CHECK(bits_of(dtype::boolean) == 8);
}

TEST_CASE("scalars know their dtype") {
    CHECK(dtype_of<float> == dtype::f32);
    CHECK(dtype_of<double> == dtype::f64);
    CHECK(dtype_of<half> == dtype::f16);
    CHECK(dtype_of<bfloat16> == dtype::bf16);
    CHECK(is_real(dtype::bf16));
    CHECK_FALSE(is_real(dtype::i32));
    CHECK_FALSE(is_real(dtype::f8_e4m3));
}

TEST_CASE_TEMPLATE("elements convert from unaligned bytes", S, float, double) {
    // IEEE bit patterns: 1.5, -2, 2^-24 (smallest f16), +inf.
    const std::array<std::uint16_t, 4> f16{0x3e00, 0xc000, 0x0001, 0x7c00};
    const std::array<std::uint16_t, 4> bf16{0x3fc0, 0xc000, 0x3380, 0x7f80};
    const std::array<std::uint32_t, 4> f32{0x3fc00000, 0xc0000000, 0x33800000, 0x7f800000};
    const std::array<std::uint64_t, 4> f64{0x3ff8000000000000, 0xc000000000000000, 0x3e70000000000000,
                                           0x7ff0000000000000};
    const auto check = [](dtype type, const void* from, std::size_t bytes) {
        std::vector<std::byte> raw(bytes + 1);
        std::memcpy(raw.data() + 1, from, bytes);
        std::array<S, 4> out{};
        convert_elements<S>(type, std::span<const std::byte>(raw).subspan(1), out);
        CHECK(out[0] == S(1.5));
        CHECK(out[1] == S(-2));
        CHECK(out[2] == S(0x1p-24));
        CHECK(out[3] == std::numeric_limits<S>::infinity());
    };
    check(dtype::f16, f16.data(), sizeof f16);
    check(dtype::bf16, bf16.data(), sizeof bf16);
    check(dtype::f32, f32.data(), sizeof f32);
    check(dtype::f64, f64.data(), sizeof f64);

    std::array<S, 1> one{};
    CHECK_THROWS_AS(convert_elements<S>(dtype::i32, std::as_bytes(std::span(one)), one), contract_violation);
    CHECK_THROWS_AS(convert_elements<S>(dtype::f16, std::as_bytes(std::span(one)), one), contract_violation);
    convert_elements<S>(dtype::f16, {}, std::span<S>{});
}

TEST_CASE("elements of every type of numbers are doubles") {
    const auto one = [](dtype type, auto stored) {
        double value = 0;
        convert_numbers(type, std::as_bytes(std::span(&stored, 1)), {&value, 1});
        return value;
    };
    CHECK(one(dtype::i64, std::int64_t{-16}) == -16);
    CHECK(one(dtype::u64, std::uint64_t{1} << 63) == 0x1p63);
    CHECK(one(dtype::i8, std::int8_t{-128}) == -128);
    CHECK(one(dtype::u16, std::uint16_t{65535}) == 65535);
    CHECK(one(dtype::boolean, std::uint8_t{1}) == 1);
    CHECK(one(dtype::f32, 0.5F) == 0.5);
    // OCP: S.1111.110 is 448, the smallest subnormal 2^-9; E5M2 has infinity at S.11111.00.
    CHECK(one(dtype::f8_e4m3, std::uint8_t{0x38}) == 1);
    CHECK(one(dtype::f8_e4m3, std::uint8_t{0x7e}) == 448);
    CHECK(one(dtype::f8_e4m3, std::uint8_t{0x81}) == -0x1p-9);
    CHECK(std::isnan(one(dtype::f8_e4m3, std::uint8_t{0xff})));
    CHECK(one(dtype::f8_e5m2, std::uint8_t{0x3c}) == 1);
    CHECK(one(dtype::f8_e5m2, std::uint8_t{0x7b}) == 57344);
    CHECK(std::isinf(one(dtype::f8_e5m2, std::uint8_t{0x7c})));
    CHECK(std::isnan(one(dtype::f8_e5m2, std::uint8_t{0x7d})));
    CHECK(one(dtype::f8_e4m3fnuz, std::uint8_t{0x7f}) == 240);
    CHECK(std::isnan(one(dtype::f8_e4m3fnuz, std::uint8_t{0x80})));
    CHECK(one(dtype::f8_e5m2fnuz, std::uint8_t{0x7f}) == 57344);
    CHECK(one(dtype::f8_e8m0, std::uint8_t{127}) == 1);
    CHECK(std::isnan(one(dtype::f8_e8m0, std::uint8_t{255})));
    CHECK_FALSE(is_number(dtype::f4));
    CHECK_FALSE(is_number(dtype::c64));
}

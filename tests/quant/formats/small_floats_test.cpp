// SPDX-License-Identifier: MIT
#include <lowrank/quant/formats/small_floats.hpp>

#include <bit>
#include <cmath>
#include <cstdint>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("small_floats: the values that the definitions name") {
    using enum float8_format;
    CHECK(float8_value(e4m3, 0x7e) == 448);
    CHECK(float8_value(e4m3, 0x01) == std::ldexp(1.0F, -9));
    CHECK(float8_value(e4m3, 0x38) == 1);
    CHECK(float8_value(e4m3, 0xb8) == -1);
    CHECK(std::isnan(float8_value(e4m3, 0x7f)));
    CHECK(std::isnan(float8_value(e4m3, 0xff)));
    CHECK(float8_value(e5m2, 0x7b) == 57344);
    CHECK(float8_value(e5m2, 0x01) == std::ldexp(1.0F, -16));
    CHECK(float8_value(e5m2, 0xfc) == -std::numeric_limits<float>::infinity());
    CHECK(std::isnan(float8_value(e5m2, 0x7d)));
    CHECK(float8_value(e4m3fnuz, 0x7f) == 240);
    CHECK(std::isnan(float8_value(e4m3fnuz, 0x80)));
    CHECK(float8_value(e5m2fnuz, 0x7f) == 57344);
    CHECK(std::isnan(float8_value(e5m2fnuz, 0x80)));
    CHECK(float8_value(e8m0, 127) == 1);
    CHECK(float8_value(e8m0, 0) == std::ldexp(1.0F, -127));
    CHECK(float8_value(e8m0, 254) == std::ldexp(1.0F, 127));
    CHECK(std::isnan(float8_value(e8m0, 255)));
}

TEST_CASE("small_floats: tables hold the values of all codes, ascending in each sign") {
    using enum float8_format;
    for (const auto format : {e4m3, e5m2, e4m3fnuz, e5m2fnuz}) {
        const auto values = float8_values(format);
        for (unsigned code = 0; code < 256; ++code) {
            const float x = float8_value(format, static_cast<std::uint8_t>(code));
            CHECK(std::bit_cast<std::uint32_t>(values[code]) == std::bit_cast<std::uint32_t>(x));
            if (code % 128 > 1 && !std::isnan(x)) {
                CHECK(std::abs(x) > std::abs(values[code - 1]));
                CHECK(std::signbit(x) == (code >= 128));
            }
        }
    }
    for (std::size_t code = 0; code < 8; ++code) {
        CHECK(float4_values[code + 8] == -float4_values[code]);
        CHECK(std::signbit(float4_values[code + 8]));
    }
    CHECK(float4_values[7] == 6);
}

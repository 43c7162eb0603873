// SPDX-License-Identifier: MIT
#include <lowrank/quant/formats/small_floats.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>

#include "support/shared.hpp"

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

TEST_CASE("small_floats: rounding takes the nearest number, the even code at ties, the largest beyond it") {
    using enum float8_format;
    const philox random(3);
    for (const auto format : {e4m3, e5m2, e4m3fnuz, e5m2fnuz}) {
        const float8_encoder encoder(format);
        const auto values = float8_values(format);
        const auto check = [&](float x) {
            const std::uint8_t code = encoder(x);
            const auto wanted = static_cast<double>(std::clamp(x, -encoder.largest(), encoder.largest()));
            double best = std::numeric_limits<double>::infinity();
            for (const float v : values) {
                if (std::isfinite(v)) {
                    best = std::min(best, std::abs(static_cast<double>(v) - wanted));
                }
            }
            const double mine = std::abs(static_cast<double>(values[code]) - wanted);
            CHECK(mine == best);
            if (mine != 0 && code % 2 == 1) {  // no tie, or the even code would be taken
                const auto other =
                    static_cast<std::uint8_t>(std::abs(values[code]) < std::abs(x) ? code + 1 : code - 1);
                CHECK((!std::isfinite(values[other]) || std::abs(static_cast<double>(values[other]) - wanted) > mine));
            }
            CHECK((std::signbit(values[code]) == std::signbit(x) || values[code] == 0));
        };
        for (unsigned code = 0; code < 256; ++code) {
            if (std::isfinite(values[code])) {
                CHECK(values[encoder(values[code])] == values[code]);
                check(values[code]);
                check(std::nextafter(values[code], 1e9F));
                check(std::nextafter(values[code], -1e9F));
                if (code % 128 != 127 && std::isfinite(values[code + 1])) {
                    check(0.5F * (values[code] + values[code + 1]));
                }
            }
        }
        for (std::uint64_t i = 0; i < 500; ++i) {
            check(std::ldexp(random.normal<float>(i), static_cast<int>(i % 40) - 20));
        }
        CHECK(values[encoder(std::numeric_limits<float>::infinity())] == encoder.largest());
        CHECK(values[encoder(-1e30F)] == -encoder.largest());
        CHECK(std::isnan(values[encoder(std::numeric_limits<float>::quiet_NaN())]));
    }
}

TEST_CASE("small_floats: rounding of published vectors") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto read = [&](const char* name) {
        std::ifstream file(shared / "quant" / "fp8.safetensors", std::ios::binary);
        std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        std::uint64_t length = 0;
        std::memcpy(&length, text.data(), sizeof length);
        const std::string key = std::string("\"") + name + "\"";
        const std::size_t at = text.find("[", text.find("data_offsets", text.find(key))) + 1;
        const auto begin = static_cast<std::size_t>(std::stoull(text.substr(at)));
        const auto end = static_cast<std::size_t>(std::stoull(text.substr(text.find(",", at) + 1)));
        return text.substr(8 + length + begin, end - begin);
    };
    const std::string bytes = read("round_source");
    std::vector<float> source(bytes.size() / sizeof(float));
    std::memcpy(source.data(), bytes.data(), bytes.size());
    REQUIRE(source.size() > 6000);
    for (const auto& [format, name] : {std::pair{float8_format::e4m3, "e4m3fn_codes_saturating"},
                                       std::pair{float8_format::e5m2, "e5m2_codes_saturating"}}) {
        const std::string codes = read(name);
        REQUIRE(codes.size() == source.size());
        const float8_encoder encoder(format);
        std::size_t different = 0;
        for (std::size_t i = 0; i < source.size(); ++i) {
            const auto expected = static_cast<std::uint8_t>(codes[i]);
            const bool is_nan = std::isnan(source[i]);
            different += is_nan ? !std::isnan(encoder.values()[encoder(source[i])]) : encoder(source[i]) != expected;
        }
        CHECK(different == 0);
    }
}

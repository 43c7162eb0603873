// SPDX-License-Identifier: MIT
#include <lowrank/quant/formats/ggml_blocks.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/checksum.hpp>
#include <lowrank/core/philox.hpp>

using namespace lowrank;

namespace {

std::vector<float> normals(std::size_t count, std::uint64_t seed) {
    const philox random(seed);
    std::vector<float> x(count);
    for (std::size_t i = 0; i < count; ++i) {
        x[i] = random.normal<float>(i);
    }
    return x;
}

std::vector<std::byte> bytes(std::initializer_list<int> values) {
    std::vector<std::byte> out;
    for (const int v : values) {
        out.push_back(static_cast<std::byte>(v));
    }
    return out;
}

std::vector<float> decoded(ggml_type type, const std::vector<std::byte>& b) {
    std::vector<float> x(b.size() / facts_of(type).bytes * facts_of(type).block);
    dequantize_ggml(type, b, x);
    return x;
}

/// Blocks of 32 floats of either sign, spread over three binades, whose largest exponent takes every value in turn; in
/// every fourth the largest magnitude occurs with both signs. The same on every machine.
std::vector<float> hard_blocks() {
    const philox random(11);
    std::vector<float> x(32 * 2000);
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t block = i / 32;
        const std::uint64_t word = random.bits64(i);
        const auto exponent = static_cast<std::uint32_t>(block % 255 + 3 - std::min<std::uint64_t>(word >> 62, 2));
        std::uint32_t bits = std::min(exponent, 254U) << 23 | static_cast<std::uint32_t>(word & 0x807fffffU);
        if (block % 4 == 0 && i % 32 >= 30) {
            bits = std::min(static_cast<std::uint32_t>(block % 255 + 4), 254U) << 23 | (i % 2 == 0 ? 0x80000000U : 0U);
        }
        x[i] = block % 17 == 0 && i % 3 == 0 ? 0.0F : std::bit_cast<float>(bits);
    }
    return x;
}

/// Blocks of random bytes whose scales (16-bit floats at `scales`) are finite.
std::vector<std::byte> random_blocks(std::size_t count, std::size_t bytes, std::initializer_list<std::size_t> scales) {
    const philox random(13);
    std::vector<std::byte> b(count * bytes);
    for (std::size_t i = 0; i < b.size(); ++i) {
        b[i] = static_cast<std::byte>(random.bits64(i));
    }
    for (std::size_t block = 0; block < count; ++block) {
        for (const std::size_t at : scales) {
            b[block * bytes + at + 1] &= std::byte{0xbf};
        }
    }
    return b;
}

}  // namespace

TEST_CASE("blocks of 32 decode by their formulas") {
    // d = 2 (f16 0x4000), m = -1 (0xbc00); the nibbles of byte i are i and 15 - i.
    const auto nibbles = [](std::vector<std::byte> head) {
        for (int i = 0; i < 16; ++i) {
            head.push_back(static_cast<std::byte>(i | (15 - i) << 4));
        }
        return head;
    };
    const auto q40 = decoded(ggml_type::q4_0, nibbles(bytes({0x00, 0x40})));
    const auto q41 = decoded(ggml_type::q4_1, nibbles(bytes({0x00, 0x40, 0x00, 0xbc})));
    // Fifth bits: set for elements 0 and 31.
    const auto q50 = decoded(ggml_type::q5_0, nibbles(bytes({0x00, 0x40, 1, 0, 0, 0x80})));
    const auto q51 = decoded(ggml_type::q5_1, nibbles(bytes({0x00, 0x40, 0x00, 0xbc, 1, 0, 0, 0x80})));
    for (std::size_t i = 0; i < 32; ++i) {
        const float q = i < 16 ? static_cast<float>(i) : 31.0F - static_cast<float>(i);
        const float five = q + (i == 0 || i == 31 ? 16.0F : 0.0F);
        CHECK(q40[i] == 2 * (q - 8));
        CHECK(q41[i] == 2 * q - 1);
        CHECK(q50[i] == 2 * (five - 16));
        CHECK(q51[i] == 2 * five - 1);
    }
    auto q8 = bytes({0x00, 0x38});  // d = 0.5
    for (int i = 0; i < 32; ++i) {
        q8.push_back(static_cast<std::byte>(i * 8 - 128));
    }
    const auto q80 = decoded(ggml_type::q8_0, q8);
    for (std::size_t i = 0; i < 32; ++i) {
        CHECK(q80[i] == 0.5F * (static_cast<float>(i) * 8 - 128));
    }
}

TEST_CASE("blocks of 256 decode by their formulas") {
    // Written from the description of the format, element by element, with scales as plain numbers.
    const philox random(3);
    std::array<unsigned, 8> scale{}, min{};
    std::array<unsigned, 256> value{};
    for (std::size_t j = 0; j < 8; ++j) {
        scale[j] = static_cast<unsigned>(random.below(64, j));
        min[j] = static_cast<unsigned>(random.below(64, 100 + j));
    }
    for (const unsigned bits : {4U, 5U}) {
        for (std::size_t i = 0; i < 256; ++i) {
            value[i] = static_cast<unsigned>(random.below(1U << bits, 1000 * bits + i));
        }
        std::vector<std::byte> block(bits == 4 ? 144 : 176);
        const auto set = [&](std::size_t at, unsigned v) { block[at] |= static_cast<std::byte>(v); };
        set(1, 0x3c);  // d = 1
        set(3, 0x38);  // dmin = 0.5
        for (std::size_t j = 0; j < 4; ++j) {
            set(4 + j, scale[j] | (scale[j + 4] >> 4) << 6);
            set(8 + j, min[j] | (min[j + 4] >> 4) << 6);
            set(12 + j, (scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
        }
        const std::size_t quants = bits == 4 ? 16 : 48;
        for (std::size_t i = 0; i < 256; ++i) {
            set(quants + i / 64 * 32 + i % 32, (value[i] & 15) << (i % 64 < 32 ? 0 : 4));
            if (bits == 5) {
                set(16 + i % 32, (value[i] >> 4) << (i / 32));
            }
        }
        const auto x = decoded(bits == 4 ? ggml_type::q4_k : ggml_type::q5_k, block);
        for (std::size_t i = 0; i < 256; ++i) {
            CHECK(x[i] == static_cast<float>(scale[i / 32] * value[i]) - 0.5F * static_cast<float>(min[i / 32]));
        }
    }
    std::vector<std::byte> block(210);
    for (std::size_t i = 0; i < 256; ++i) {
        value[i] = static_cast<unsigned>(random.below(64, 9000 + i));
        const std::size_t part = i / 128, k = i % 128 / 32, at = i % 32;
        block[part * 64 + (k % 2) * 32 + at] |= static_cast<std::byte>((value[i] & 15) << (k < 2 ? 0 : 4));
        block[128 + part * 32 + at] |= static_cast<std::byte>((value[i] >> 4) << (2 * k));
    }
    for (std::size_t j = 0; j < 16; ++j) {
        block[192 + j] = static_cast<std::byte>(static_cast<int>(j) * 16 - 128);
    }
    block[209] = std::byte{0x38};  // d = 0.5
    const auto x = decoded(ggml_type::q6_k, block);
    for (std::size_t i = 0; i < 256; ++i) {
        const float scaled = 0.5F * (static_cast<float>(i / 16) * 16 - 128);
        CHECK(x[i] == scaled * (static_cast<float>(value[i]) - 32));
    }
}

TEST_CASE("Q8_0 and Q4_0 round as described and stay within half a step") {
    const auto x = normals(32 * 50, 5);
    for (const ggml_type type : {ggml_type::q8_0, ggml_type::q4_0}) {
        std::vector<std::byte> b(ggml_bytes(type, x.size()));
        quantize_ggml(type, x, b);
        const auto y = decoded(type, b);
        for (std::size_t i = 0; i < x.size(); ++i) {
            float most = 0;
            for (std::size_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) {
                most = std::max(most, std::abs(x[j]));
            }
            // Q4_0 reaches from -8 to 7 steps: one end of the range may lose a whole step.
            const float step = type == ggml_type::q8_0 ? most / 127 / 2 : most / 8;
            CHECK(std::abs(x[i] - y[i]) <= step * 1.01F + most * 0x1p-10F);
        }
    }
    // A block by hand: the largest magnitude is -4, so d = 0.5, and x / d + 8.5 is cut to an integer.
    std::vector<float> hand(32, 0.0F);
    hand[0] = -4;
    hand[1] = 4;
    hand[16] = 0.24F;
    hand[17] = 0.25F;
    std::vector<std::byte> b(18);
    quantize_ggml(ggml_type::q4_0, hand, b);
    CHECK(b[1] == std::byte{0x38});
    CHECK(b[2] == std::byte{0x80});  // 0 | 8 << 4
    CHECK(b[3] == std::byte{0x9f});  // 15 (cut from 16) | 9 << 4: 0.5 rounds up
    CHECK(b[4] == std::byte{0x88});
    const std::vector<float> zeros(32, 0.0F);
    std::vector<std::byte> z(34);
    quantize_ggml(ggml_type::q8_0, zeros, z);
    CHECK(z == std::vector<std::byte>(34));
}

TEST_CASE("the bytes and numbers are those of ggml") {
    // Checksums of what ggml_quantize_chunk and dequantize_row_* of llama.cpp 3f545be gave for the same blocks.
    const auto x = hard_blocks();
    const auto encoded = [&](ggml_type type) {
        std::vector<std::byte> b(ggml_bytes(type, x.size()));
        quantize_ggml(type, x, b);
        return lowrank::checksum(b.data(), b.size(), 1);
    };
    CHECK(encoded(ggml_type::q8_0) == 1260415912328947493U);
    CHECK(encoded(ggml_type::q4_0) == 6456685674013521637U);
    const auto numbers = [](ggml_type type, std::initializer_list<std::size_t> scales) {
        const auto y = decoded(type, random_blocks(300, facts_of(type).bytes, scales));
        return lowrank::checksum(y.data(), y.size() * sizeof(float), 1);
    };
    CHECK(numbers(ggml_type::q8_0, {0}) == 10469567566325892895U);
    CHECK(numbers(ggml_type::q4_0, {0}) == 14067156881386289628U);
    CHECK(numbers(ggml_type::q4_1, {0, 2}) == 17671111188693967193U);
    CHECK(numbers(ggml_type::q5_0, {0}) == 911567657881714902U);
    CHECK(numbers(ggml_type::q5_1, {0, 2}) == 9998555325097556160U);
    CHECK(numbers(ggml_type::q4_k, {0, 2}) == 12347535796807403297U);
    CHECK(numbers(ggml_type::q5_k, {0, 2}) == 4620051660400067935U);
    CHECK(numbers(ggml_type::q6_k, {208}) == 10805142669207249001U);
}

TEST_CASE("blocks too small for a reciprocal of their scale become zeros") {
    for (const float tiny : {1e-45F, 1e-41F, -3e-39F}) {
        std::vector<float> x(32, tiny);
        x[5] = 0;
        for (const ggml_type type : {ggml_type::q8_0, ggml_type::q4_0}) {
            std::vector<std::byte> b(ggml_bytes(type, x.size()));
            quantize_ggml(type, x, b);
            for (const float y : decoded(type, b)) {
                CHECK(y == 0);
            }
        }
    }
}

TEST_CASE("plain types pass through with one rounding") {
    const auto x = normals(7, 9);
    for (const ggml_type type : {ggml_type::f32, ggml_type::f16, ggml_type::bf16}) {
        std::vector<std::byte> b(ggml_bytes(type, x.size()));
        quantize_ggml(type, x, b);
        const auto y = decoded(type, b);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const float expected = type == ggml_type::f32   ? x[i]
                                   : type == ggml_type::f16 ? static_cast<float>(half(x[i]))
                                                            : static_cast<float>(bfloat16(x[i]));
            CHECK(y[i] == expected);
        }
    }
}

TEST_CASE("wrong sizes and types are broken contracts") {
    std::vector<float> x(32);
    std::vector<std::byte> b(34);
    CHECK_THROWS_AS(dequantize_ggml(ggml_type::q4_0, b, x), contract_violation);
    CHECK_THROWS_AS(dequantize_ggml(ggml_type::iq2_xs, b, x), contract_violation);
    CHECK_THROWS_AS(quantize_ggml(ggml_type::q6_k, std::span(x).first(0), std::span(b).first(0)), contract_violation);
    CHECK_THROWS_AS((void)ggml_bytes(ggml_type::q8_0, 31), contract_violation);
    CHECK_THROWS_AS((void)ggml_bytes(static_cast<ggml_type>(4), 32), contract_violation);
}

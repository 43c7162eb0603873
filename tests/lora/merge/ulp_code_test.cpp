// SPDX-License-Identifier: MIT
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/merge/detail/ulp_code.hpp>

#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;
using detail::ulp_decoder;
using detail::ulp_distance;
using detail::ulp_encoder;
using detail::ulp_rank;
using detail::ulp_shift;

namespace {

std::map<std::uint64_t, std::int64_t> decode(const std::vector<std::uint8_t>& bytes, std::uint64_t count) {
    std::map<std::uint64_t, std::int64_t> all;
    for (ulp_decoder at(bytes, count); at.position() < count; at.next()) {
        all[at.position()] = at.correction();
    }
    return all;
}

std::vector<std::uint8_t> encode(const std::map<std::uint64_t, std::int64_t>& all, std::uint64_t count) {
    ulp_encoder code;
    for (const auto& [position, correction] : all) {
        code.put(position, correction);
    }
    return code.finish(count);
}

}  // namespace

TEST_CASE_TEMPLATE("neighbouring values are one unit apart, across zero and up to infinity", T, float, double, half,
                   bfloat16) {
    using limits = std::numeric_limits<T>;
    const T values[] = {-limits::infinity(),
                        limits::lowest(),
                        T(-1),
                        -limits::denorm_min(),
                        T(-0.0F),
                        T(0.0F),
                        limits::denorm_min(),
                        T(1),
                        limits::max(),
                        limits::infinity()};
    for (std::size_t i = 1; i < std::size(values); ++i) {
        CHECK(ulp_rank(values[i - 1]) < ulp_rank(values[i]));
    }
    CHECK(ulp_distance(T(-0.0F), T(0.0F)) == 1);
    CHECK(ulp_distance(T(0.0F), limits::denorm_min()) == 1);
    CHECK(ulp_distance(limits::max(), limits::infinity()) == 1);
    const int mantissa = std::is_same_v<T, double>  ? 52
                         : std::is_same_v<T, float> ? 23
                         : std::is_same_v<T, half>  ? 10
                                                    : 7;
    CHECK(ulp_distance(T(1), static_cast<T>(static_cast<compute_t<T>>(1 + std::ldexp(1.0, -mantissa)))) == 1);
    for (const T from : values) {
        for (const T to : values) {
            const T back = ulp_shift(from, ulp_distance(from, to));
            CHECK(std::memcmp(&back, &to, sizeof(T)) == 0);
        }
    }
}

TEST_CASE("codes hold any positions and corrections") {
    const std::int64_t extremes[] = {
        1, -1, 2, -2, 1000, -1000, std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()};
    const philox rng(7);
    for (std::uint64_t run = 0; run < 60; ++run) {
        const std::uint64_t count = 1 + rng.below(5000, 2 * run);
        const double density = std::pow(rng.uniform<double>(2 * run + 1), 3);
        std::map<std::uint64_t, std::int64_t> all;
        const philox draw(8, run);
        for (std::uint64_t i = 0; i < count; ++i) {
            if (draw.uniform<double>(2 * i) < density) {
                all[i] = extremes[draw.below(8, 2 * i + 1)];
            }
        }
        CHECK(decode(encode(all, count), count) == all);
    }
    CHECK(decode(encode({}, 0), 0).empty());
    const std::map<std::uint64_t, std::int64_t> far = {{0, 1}, {std::uint64_t{1} << 40, -5}};
    CHECK(decode(encode(far, std::uint64_t{1} << 50), std::uint64_t{1} << 50) == far);
}

TEST_CASE("a sparse code is within 15 % of its entropy") {
    for (const double density : {0.002, 0.02, 0.08, 0.3}) {
        const std::uint64_t count = 200000;
        std::map<std::uint64_t, std::int64_t> all;
        const philox rng(9);
        for (std::uint64_t i = 0; i < count; ++i) {
            if (rng.uniform<double>(2 * i) < density) {
                all[i] = rng.bits(4 * i + 3) % 2 == 0 ? 1 : -1;
            }
        }
        const double entropy =
            -(density * std::log2(density) + (1 - density) * std::log2(1 - density)) + density;  // + a sign
        const double bits = 8.0 * static_cast<double>(encode(all, count).size()) / static_cast<double>(count);
        // The Elias code spends two bits where a fair sign needs one.
        CHECK(bits < 1.15 * (entropy + density));
    }
}

TEST_CASE("a broken code is read without harm") {
    std::map<std::uint64_t, std::int64_t> all;
    for (std::uint64_t i = 0; i < 300; i += 3) {
        all[i] = static_cast<std::int64_t>(i) - 100;
    }
    all.erase(99);
    const auto bytes = encode(all, 400);
    for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
        for (const auto& [position, correction] : decode({bytes.begin(), bytes.begin() + std::ptrdiff_t(cut)}, 400)) {
            CHECK(position < 400);
        }
    }
    const philox rng(10);
    for (std::uint64_t run = 0; run < 300; ++run) {
        std::vector<std::uint8_t> noise(40);
        for (std::size_t i = 0; i < noise.size(); ++i) {
            noise[i] = static_cast<std::uint8_t>(rng.bits(64 * run + i));
        }
        CHECK(decode(noise, 1000).size() <= 1000);
    }
}

TEST_CASE("the checksum sees every byte, its place, the length and the seed") {
    std::string text(100, 'a');
    const auto sum = [](const std::string& s, std::uint64_t seed) { return checksum(s.data(), s.size(), seed); };
    const auto reference = sum(text, 1);
    CHECK(sum(text, 2) != reference);
    CHECK(sum(text + 'a', 1) != reference);
    for (std::size_t i = 0; i < text.size(); ++i) {
        text[i] = 'b';
        CHECK(sum(text, 1) != reference);
        text[i] = 'a';
    }
    CHECK(sum(text, 1) == reference);
    CHECK(sum(std::string(3, '\0'), 1) != sum(std::string(4, '\0'), 1));
}

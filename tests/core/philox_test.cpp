// SPDX-License-Identifier: MIT
#include <lowrank/core/philox.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

using counter = std::array<std::uint32_t, 4>;
using key = std::array<std::uint32_t, 2>;

struct known_answer {
    counter c;
    key k;
    counter answer;
};

// kat_vectors of Random123, philox4x32 10 rounds.
constexpr known_answer known[] = {{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}},
                                  {{0xffffffffU, 0xffffffffU, 0xffffffffU, 0xffffffffU},
                                   {0xffffffffU, 0xffffffffU},
                                   {0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}},
                                  {{0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U},
                                   {0xa4093822U, 0x299f31d0U},
                                   {0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}}};

static_assert(philox4x32(known[0].c, known[0].k) == known[0].answer);
static_assert(philox4x32(known[1].c, known[1].k) == known[1].answer);
static_assert(philox4x32(known[2].c, known[2].k) == known[2].answer);

// The seed is the key, low word first; counter words 0 and 1 are the block, 2 and 3 the stream.
static_assert(philox(0x299f31d0a4093822U, 0x0370734413198a2eU).block(0x85a308d3243f6a88U) == known[2].answer);

}  // namespace

TEST_CASE("known answers of the reference implementation, at run time") {
    for (const auto& one : known) {
        volatile std::uint32_t word = one.c[0];  // keeps the computation out of the compiler
        counter c = one.c;
        c[0] = word;
        CHECK(philox4x32(c, one.k) == one.answer);
    }
}

TEST_CASE("positions read the words of their block in order") {
    const philox rng(7, 9);
    for (std::uint64_t position = 0; position < 64; ++position) {
        CHECK(rng.bits(position) == rng.block(position / 4)[position % 4]);
        CHECK(rng.bits64(position) == (rng.bits(2 * position) | (std::uint64_t{rng.bits(2 * position + 1)} << 32)));
    }
    const std::uint64_t far = 0xffffffffffffffffU;
    CHECK(rng.bits(far) == rng.block(far / 4)[3]);
}

TEST_CASE("seeds and streams give different numbers") {
    std::set<std::uint64_t> words;
    for (std::uint64_t seed : {0U, 1U, 2U}) {
        for (std::uint64_t stream : {0U, 1U, 2U}) {
            for (std::uint64_t position = 0; position < 100; ++position) {
                words.insert(philox(seed, stream).bits64(position));
            }
        }
    }
    CHECK(words.size() == 900);
}

TEST_CASE_TEMPLATE("uniforms lie in [0, 1) and have the moments of the uniform distribution", S, float, double) {
    const philox rng(1, 2);
    const int count = 200000;
    double sum = 0, squares = 0, products = 0, previous = 0;
    for (int i = 0; i < count; ++i) {
        const S u = rng.uniform<S>(static_cast<std::uint64_t>(i));
        REQUIRE((u >= S(0) && u < S(1)));
        const double d = static_cast<double>(u) - 0.5;
        sum += d;
        squares += d * d;
        products += d * previous;
        previous = d;
    }
    const double sigma = std::sqrt(1.0 / 12 / count);  // of the mean; five of them are one in two million
    CHECK(std::abs(sum / count) < 5 * sigma);
    CHECK(std::abs(squares / count - 1.0 / 12) < 5 * std::sqrt(1.0 / 180 / count));
    CHECK(std::abs(products / count) < 5 / 12.0 / std::sqrt(count));
}

TEST_CASE_TEMPLATE("normals have the moments of the normal distribution", S, float, double) {
    const philox rng(3, 4);
    const int count = 200000;
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, pairs = 0;
    int inside = 0;
    for (int i = 0; i < count; i += 2) {
        const double a = static_cast<double>(rng.normal<S>(static_cast<std::uint64_t>(i)));
        const double b = static_cast<double>(rng.normal<S>(static_cast<std::uint64_t>(i + 1)));
        for (const double z : {a, b}) {
            m1 += z;
            m2 += z * z;
            m3 += z * z * z;
            m4 += z * z * z * z;
            inside += std::abs(z) < 1 ? 1 : 0;
        }
        pairs += a * b;
    }
    const double root = std::sqrt(count);
    CHECK(std::abs(m1 / count) < 5 / root);
    CHECK(std::abs(m2 / count - 1) < 5 * std::sqrt(2.0) / root);
    CHECK(std::abs(m3 / count) < 5 * std::sqrt(15.0) / root);
    CHECK(std::abs(m4 / count - 3) < 5 * std::sqrt(96.0) / root);
    CHECK(std::abs(pairs / (count / 2)) < 5 * std::sqrt(2.0) / root);
    CHECK(std::abs(static_cast<double>(inside) / count - std::erf(std::sqrt(0.5))) < 5 * 0.466 / root);
}

TEST_CASE("below is the upper half of the 128-bit product") {
    const philox rng(5);
    const std::uint64_t bounds[] = {1, 2, 3, 10, 0xffffffffU, 0x100000000U, 0x123456789abcdefU, 0xffffffffffffffffU};
    for (const std::uint64_t bound : bounds) {
        for (std::uint64_t position = 0; position < 200; ++position) {
            const std::uint64_t word = rng.bits64(position);
            const std::uint64_t got = rng.below(bound, position);
            REQUIRE(got < bound);
            // Bit by bit: floor(word * bound / 2^64) by schoolbook long division of the doubling kind.
            std::uint64_t high = 0, low = 0;
            for (int bit = 63; bit >= 0; --bit) {
                high = (high << 1) | (low >> 63);
                low <<= 1;
                if ((word >> bit) & 1U) {
                    low += bound;
                    high += low < bound ? 1U : 0U;
                }
            }
            REQUIRE(got == high);
        }
    }
}

TEST_CASE("below fills a small range evenly") {
    const philox rng(6);
    std::array<int, 7> count{};
    const int draws = 70000;
    for (int i = 0; i < draws; ++i) {
        ++count[rng.below(7, static_cast<std::uint64_t>(i))];
    }
    double chi = 0;
    for (const int c : count) {
        chi += (c - draws / 7.0) * (c - draws / 7.0) / (draws / 7.0);
    }
    CHECK(chi < 40);  // six degrees of freedom: beyond 38.3 once in a million
}

TEST_CASE_TEMPLATE("filling depends on row and column, not on storage order or shape of memory", S, float, double) {
    const philox rng(11, 12);
    for (const auto& [rows, cols] : std::vector<std::pair<lowrank::index, lowrank::index>>{
             {1, 1}, {3, 5}, {17, 33}, {40, 16}, {5, 1}, {1, 70}, {0, 4}, {4, 0}}) {
        matrix<S> a(rows, cols);
        row_matrix<S> b(rows, cols);
        matrix<S> frame = matrix<S>::Constant(rows + 3, cols + 2, S(7));
        fill_uniform(a, S(-0.25), S(0.25), rng);
        fill_uniform(b, S(-0.25), S(0.25), rng);
        fill_uniform(frame.block(2, 1, rows, cols), S(-0.25), S(0.25), rng);
        CHECK(a == b);
        CHECK(a == frame.block(2, 1, rows, cols));
        CHECK((frame.topRows(2).array() == S(7)).all());
        for (lowrank::index i = 0; i < rows; ++i) {
            for (lowrank::index j = 0; j < cols; ++j) {
                const S u = rng.uniform<S>(static_cast<std::uint64_t>(i * cols + j));
                REQUIRE(a(i, j) == S(-0.25) + S(0.5) * u);  // exact for these bounds, whatever the compiler contracts
            }
        }
        fill_normal(a, S(2), rng);
        fill_normal(b, S(2), rng);
        CHECK(a == b);
        for (lowrank::index i = 0; i < rows; ++i) {
            for (lowrank::index j = 0; j < cols; ++j) {
                REQUIRE(a(i, j) == S(2) * rng.normal<S>(static_cast<std::uint64_t>(i * cols + j)));
            }
        }
    }
}

TEST_CASE_TEMPLATE("uniforms between bounds are rounded once from the exact value", S, float, double) {
    // The formula with one fused rounding, in long double: what every machine must give.
    const philox rng(13);
    const S low = S(-0.7), high = S(1.9);
    matrix<S> a(50, 20);
    fill_uniform(a, low, high, rng);
    for (lowrank::index i = 0; i < a.rows(); ++i) {
        for (lowrank::index j = 0; j < a.cols(); ++j) {
            const S u = rng.uniform<S>(static_cast<std::uint64_t>(i * a.cols() + j));
            const S width = high - low;
            REQUIRE(std::abs(static_cast<long double>(a(i, j)) -
                             (static_cast<long double>(width) * static_cast<long double>(u) +
                              static_cast<long double>(low))) <=
                    static_cast<long double>(std::numeric_limits<S>::epsilon()) * 1.0000001L);
            REQUIRE(a(i, j) >= low);
            REQUIRE(a(i, j) <= high);
        }
    }
}

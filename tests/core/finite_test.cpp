// SPDX-License-Identifier: MIT
#include <lowrank/core/finite.hpp>

#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

// Defined in finite_fast_math_test.cpp, which is compiled as an engine would: with fast-math.
namespace lowrank_tests {
bool fast_math_all_finite(const float* data, lowrank::index count);
bool fast_math_all_finite(const double* data, lowrank::index count);
bool fast_math_is_on();
}  // namespace lowrank_tests

static_assert(is_finite(0.0) && is_finite(std::numeric_limits<double>::denorm_min()) &&
              is_finite(std::numeric_limits<double>::max()) && !is_finite(std::numeric_limits<double>::infinity()) &&
              !is_finite(-std::numeric_limits<float>::infinity()) &&
              !is_finite(std::numeric_limits<float>::quiet_NaN()));

TEST_CASE_TEMPLATE("every 16-bit pattern is classified by its exponent", T, half, bfloat16) {
    for (std::uint32_t bits = 0; bits <= 0xffffU; ++bits) {
        const auto x = std::bit_cast<T>(static_cast<std::uint16_t>(bits));
        const auto wide = std::bit_cast<std::uint32_t>(static_cast<float>(x));
        const bool expected = (wide & 0x7f800000U) != 0x7f800000U;
        if (is_finite(x) != expected) {
            FAIL("bits " << bits);
        }
    }
}

TEST_CASE_TEMPLATE("one bad entry is found wherever it lies", T, float, double, half, bfloat16) {
    const T bads[] = {std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity(),
                      std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::signaling_NaN()};
    for (const lowrank::index size : {1, 2, 255, 256, 257, 1000}) {
        std::vector<T> x(static_cast<std::size_t>(size), T(1));
        CHECK(all_finite(x.data(), size));
        for (const lowrank::index at : {lowrank::index(0), size / 2, size - 1}) {
            for (const T bad : bads) {
                x[static_cast<std::size_t>(at)] = bad;
                CHECK_FALSE(all_finite(x.data(), size));
                x[static_cast<std::size_t>(at)] = T(1);
            }
        }
    }
    CHECK(all_finite(static_cast<const T*>(nullptr), 0));
}

TEST_CASE_TEMPLATE("blocks, vectors and strides look at their own entries only", S, float, double) {
    const S nan = std::numeric_limits<S>::quiet_NaN();
    matrix<S> a = matrix<S>::Zero(7, 5);
    row_matrix<S> b = row_matrix<S>::Zero(7, 5);
    CHECK(all_finite(a));
    a(6, 4) = nan;
    b(6, 4) = nan;
    CHECK_FALSE(all_finite(a));
    CHECK_FALSE(all_finite(b));
    CHECK(all_finite(a.block(0, 0, 6, 5)));
    CHECK(all_finite(b.leftCols(4)));
    CHECK_FALSE(all_finite(b.block(5, 3, 2, 2)));
    CHECK(all_finite(a.row(5)));
    CHECK_FALSE(all_finite(a.row(6)));
    CHECK_FALSE(all_finite(b.col(4)));
    CHECK(all_finite(b.col(3)));
    CHECK_FALSE(all_finite(a.transpose()));
    CHECK(all_finite(matrix<S>(0, 3)));
    const Eigen::Map<const vector<S>, 0, Eigen::InnerStride<>> every_second(a.data(), 17, Eigen::InnerStride<>(2));
    CHECK(all_finite(every_second));
}

TEST_CASE("fast-math does not hide NaN and infinity") {
    REQUIRE(lowrank_tests::fast_math_is_on());
    std::vector<float> x(1000, 1.0F);
    std::vector<double> y(1000, 1.0);
    CHECK(lowrank_tests::fast_math_all_finite(x.data(), 1000));
    CHECK(lowrank_tests::fast_math_all_finite(y.data(), 1000));
    for (const std::size_t at : {std::size_t{0}, std::size_t{517}, std::size_t{999}}) {
        x[at] = std::numeric_limits<float>::quiet_NaN();
        y[at] = std::numeric_limits<double>::quiet_NaN();
        CHECK_FALSE(lowrank_tests::fast_math_all_finite(x.data(), 1000));
        CHECK_FALSE(lowrank_tests::fast_math_all_finite(y.data(), 1000));
        x[at] = std::numeric_limits<float>::infinity();
        y[at] = -std::numeric_limits<double>::infinity();
        CHECK_FALSE(lowrank_tests::fast_math_all_finite(x.data(), 1000));
        CHECK_FALSE(lowrank_tests::fast_math_all_finite(y.data(), 1000));
        x[at] = 1.0F;
        y[at] = 1.0;
    }
}

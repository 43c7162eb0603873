// SPDX-License-Identifier: MIT
#include <lowrank/quant/formats/normal_float.hpp>

#include <cmath>

#include <limits>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

using namespace lowrank;

TEST_CASE("the levels of four bits are NF4's") {
    // QLoRA, appendix E.
    const double want[] = {-1.0,
                           -0.6961928009986877,
                           -0.5250730514526367,
                           -0.39491748809814453,
                           -0.28444138169288635,
                           -0.18477343022823334,
                           -0.09105003625154495,
                           0.0,
                           0.07958029955625534,
                           0.16093020141124725,
                           0.24611230194568634,
                           0.33791524171829224,
                           0.44070982933044434,
                           0.5626170039176941,
                           0.7229568362236023,
                           1.0};
    const auto levels = normal_float_levels(4);
    REQUIRE(levels.size() == 16);
    for (std::size_t i = 0; i < 16; ++i) {
        CHECK(std::abs(double(levels[i]) - want[i]) < 3e-7);
    }
    CHECK(normal_float_levels(2).size() == 4);
    CHECK(normal_float_levels(8).size() == 256);
}

TEST_CASE("every element becomes the nearest level of its block; blocks of zeros and short blocks are defined") {
    for (const int bits : {2, 4, 8}) {
        row_matrix<float> w(7, 19);  // 133 elements: two blocks of 64 and one of 5
        fill_normal(w, 0.3F, philox(3));
        w.row(3).setZero();
        for (lowrank::index i = 64; i < 128; ++i) {
            w.data()[i] = 0;
        }
        const auto q = quantize_normal_float(w, {.bits = bits});
        CHECK(q.packed.size() == std::size_t((133 * bits + 7) / 8));
        REQUIRE(q.scales.size() == 3);
        CHECK(q.scales[1] == 0);
        const auto back = q.dense();
        bool nearest = true;
        for (lowrank::index i = 0; i < w.size(); ++i) {
            const float scale = q.scales[std::size_t(i / 64)];
            for (const float level : q.levels) {
                nearest =
                    nearest && std::abs(back.data()[i] - w.data()[i]) <= std::abs(level * scale - w.data()[i]) + 1e-6F;
            }
        }
        CHECK(nearest);
        const auto again = quantize_normal_float(back, {.bits = bits});
        CHECK(again.packed == q.packed);
        // The same numbers from a column-major matrix.
        CHECK(quantize_normal_float(matrix<float>(w), {.bits = bits}).packed == q.packed);
    }
    CHECK_THROWS_AS((void)quantize_normal_float(matrix<float>(2, 2), {.bits = 3}), contract_violation);
    row_matrix<float> broken = row_matrix<float>::Ones(2, 2);
    broken(1, 0) = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS((void)quantize_normal_float(broken), contract_violation);
}

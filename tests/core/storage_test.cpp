// SPDX-License-Identifier: MIT
#include <lowrank/core/storage.hpp>

#include <limits>

#include <doctest/doctest.h>

#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>

using namespace lowrank;

TEST_CASE_TEMPLATE("stored values come back, and others round as Eigen's conversions do", T, float, double, half,
                   bfloat16) {
    matrix<double> values(200, 1);
    fill_normal(values, 1.0, philox(1));
    for (const double scale : {1.0, 1e-7, 1e4}) {
        for (lowrank::index i = 0; i < values.size(); ++i) {
            const double x = scale * values(i);
            const T stored = to_storage<T>(x);
            CHECK(to_double(stored) == double(compute_t<T>(static_cast<T>(static_cast<compute_t<T>>(x)))));
            CHECK(to_double(to_storage<T>(to_double(stored))) == to_double(stored));
        }
    }
    CHECK_FALSE(is_finite(to_storage<T>(std::numeric_limits<double>::infinity())));
}

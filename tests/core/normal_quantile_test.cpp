// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/normal_quantile.hpp>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("normal quantiles are the textbook's") {
    CHECK(normal_quantile(0.5) == doctest::Approx(0.0).epsilon(1e-12));
    CHECK(normal_quantile(0.975) == doctest::Approx(1.959963984540054).epsilon(1e-13));
    CHECK(normal_quantile(0.995) == doctest::Approx(2.575829303548901).epsilon(1e-13));
    CHECK(normal_quantile(1e-10) == doctest::Approx(-6.361340902404056).epsilon(1e-12));
    CHECK_THROWS_AS((void)normal_quantile(0), contract_violation);
    CHECK_THROWS_AS((void)normal_quantile(1), contract_violation);
}

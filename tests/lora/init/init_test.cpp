// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/init/init.hpp>

#include <cmath>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("each start has the distribution of its name", S, float, double) {
    const lora_options options{.r = 16, .seed = 5, .stream = 2};
    const auto start = [&](random_init how) { return make_lora<S>(300, 400, options, how); };

    const auto kaiming = start(random_init::kaiming);
    CHECK(same_bits(kaiming.lora_A, make_lora<S>(300, 400, options).lora_A));
    CHECK(kaiming.lora_B.isZero());

    const auto gaussian = start(random_init::gaussian);
    CHECK(gaussian.lora_B.isZero());
    const double deviation = std::sqrt(double(gaussian.lora_A.squaredNorm()) / 6400);
    CHECK(deviation == doctest::Approx(1.0 / 16).epsilon(0.05));
    CHECK(double(gaussian.lora_A.cwiseAbs().maxCoeff()) > 3.0 / 16);  // not uniform

    const auto nonzero = start(random_init::nonzero);
    CHECK(double(nonzero.lora_B.cwiseAbs().maxCoeff()) <= 0.25);
    CHECK(double(nonzero.lora_B.cwiseAbs().maxCoeff()) > 0.24);
    CHECK(std::abs(double(nonzero.lora_B.mean())) < 0.01);

    const auto orthogonal = start(random_init::orthogonal);
    const double size = double(orthogonal.lora_B.norm() * orthogonal.lora_A.norm());
    CHECK(size > 1);
    CHECK(double((orthogonal.lora_B * orthogonal.lora_A).norm()) < 10 * epsilon<S> * size);
    // Rows of A have the variance of ||Q rows||^2 / 100 = (r / 2) / r / 100.
    CHECK(double(orthogonal.lora_A.squaredNorm()) / 6400 == doctest::Approx(0.005).epsilon(0.1));
    CHECK_THROWS_AS((void)make_lora<S>(8, 8, {.r = 3}, random_init::orthogonal), contract_violation);
    CHECK(same_bits(start(random_init::gaussian).lora_A, gaussian.lora_A));
}

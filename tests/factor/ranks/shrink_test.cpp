// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/shrink.hpp>
#include <lowrank/factor/svd.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("hard and soft thresholds", S, float, double) {
    vector<S> s(4);
    s << S(5), S(3), S(2), S(0.5);
    vector<S> hard(4);
    hard << S(5), S(3), S(0), S(0);
    vector<S> soft(4);
    soft << S(3), S(1), S(0), S(0);
    CHECK(shrink_hard(s, 2.0).template cast<S>() == hard);
    CHECK(shrink_soft(s, 2.0).template cast<S>() == soft);
    CHECK(shrink_hard(s, 0.0).template cast<S>() == s);
    CHECK(shrink_hard(vector<S>(0), 1.0).size() == 0);
    CHECK_THROWS_AS((void)shrink_soft(s, -1.0), contract_violation);
}

TEST_CASE("the optimal shrinker is the formula of Gavish and Donoho, and never inflates") {
    const double sigma = 0.3;
    const idx m = 40;
    const idx n = 160;
    const double beta = 0.25;
    const double unit = sigma * std::sqrt(160.0);
    vector<double> s(5);
    s << 9.0 * unit, 3.0 * unit, 1.6 * unit, 1.4999 * unit, 0.2 * unit;  // the edge is at 1.5
    const auto out = shrink_optimal(s, m, n, sigma);
    for (idx i = 0; i < 3; ++i) {
        const double y = s(i) / unit;
        const double want = unit * std::sqrt(std::pow(y * y - beta - 1.0, 2) - 4.0 * beta) / y;
        CHECK(out(i) == doctest::Approx(want).epsilon(1e-12));
        CHECK(out(i) < s(i));
    }
    CHECK(out(3) == 0.0);
    CHECK(out(4) == 0.0);
    CHECK(shrink_optimal(s, m, n, 0.0) == s);
}

TEST_CASE("it recovers a noisy low-rank matrix better than any truncation") {
    const idx m = 100;
    const idx n = 240;
    const double sigma = 0.05;
    vector<double> spikes(6);
    for (idx i = 0; i < 6; ++i) {
        spikes(i) = sigma * (std::sqrt(100.0) + std::sqrt(240.0)) * (1.1 + 0.25 * static_cast<double>(i));
    }
    const matrix<double> truth = with_values<double>(m, n, spikes, 3);
    const matrix<double> noisy = truth + sigma * gaussian<double>(m, n, 9);
    const auto spec = svd(noisy);
    REQUIRE(spec);
    const auto shrunk = lowrank::with_values(spec, shrink_optimal(spec.s, m, n));
    const double error = (shrunk.dense() - truth).norm();
    CHECK(shrunk.rank() <= 8);
    for (idx k = 0; k <= 12; ++k) {
        CHECK(error < (spec.truncate(k).dense() - truth).norm());
    }
    CHECK(error < (noisy - truth).norm() / 2);
}

TEST_CASE_TEMPLATE("new values with the old vectors", S, float, double) {
    const auto spec = svd(gaussian<S>(9, 7, 4));
    REQUIRE(spec);
    CHECK(relative_difference(lowrank::with_values(spec, spec.s).dense(), spec.truncate(7).dense()) < 20 * eps<S>);
    vector<S> some = spec.s;
    some(1) = S(0);
    some(5) = S(0);
    const auto part = lowrank::with_values(spec, some);
    CHECK(part.rank() == 5);
    const std::array<idx, 5> kept{0, 2, 3, 4, 6};
    CHECK(part.left == spec.select(kept).left);
    CHECK_THROWS_AS((void)lowrank::with_values(spec, vector<S>(3)), contract_violation);
    CHECK(shrink_optimal(vector<S>(0), 0, 5).size() == 0);
}

// SPDX-License-Identifier: MIT
#include <lowrank/factor/sketched/adaptive_svd.hpp>

#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("the tolerance is met, with little more than the optimal rank", S, float, double) {
    for (const double power : {0.5, 1.0, 2.0}) {
        const vector<double> s = power_law(160, power);
        const auto w = with_values<S>(160, 190, s, 1);
        for (const double tolerance : {0.5, 0.2, 0.05, 0.01}) {
            CAPTURE(power);
            CAPTURE(tolerance);
            const auto f = adaptive_svd(w, {.tolerance = tolerance, .block = 8});
            REQUIRE(f);
            CHECK(true_error(w, f) <= tolerance * s.norm() * (1 + 1e-5));
            const idx optimum = rank_from_relative_error(s, tolerance);
            CHECK(f.s.size() >= optimum);
            CHECK(static_cast<double>(f.s.size()) <= 1.1 * static_cast<double>(optimum) + 2);
            CHECK(f.error.relative <= tolerance * (1 + 1e-5));
        }
    }
}

TEST_CASE_TEMPLATE("tolerances near rounding, where a difference of norms has no digits", S, float, double) {
    const vector<double> s = geometric(60, 1.0, 0.5);
    const auto w = with_values<S>(80, 60, s, 2);
    const double tolerance = 50 * eps<S>;
    const auto f = adaptive_svd(w, {.tolerance = tolerance, .block = 4});
    REQUIRE(f);
    CHECK(true_error(w, f) <= 2 * tolerance * s.norm());
    CHECK(f.s.size() <= rank_from_relative_error(s, tolerance) + 8);
    CHECK(f.s.size() < 60);
}

TEST_CASE_TEMPLATE("exact low rank is recognized, whatever is asked", S, float, double) {
    const auto w = with_values<S>(70, 90, geometric(7, 1.0, 0.7), 3);
    const auto f = adaptive_svd(w, {.tolerance = 1000 * eps<S>, .block = 3});
    REQUIRE(f);
    CHECK(f.s.size() == 7);
    const auto zero = adaptive_svd(matrix<S>(matrix<S>::Zero(5, 4)));
    REQUIRE(zero);
    CHECK(zero.s.size() == 0);
    const auto all = adaptive_svd(w, {.tolerance = 2.0});
    REQUIRE(all);
    CHECK(all.s.size() == 0);
    const auto full = adaptive_svd(matrix<S>(gaussian<S>(12, 9, 4)), {.tolerance = 0.0, .block = 2});
    REQUIRE(full);
    CHECK(full.s.size() == 9);
}

TEST_CASE_TEMPLATE("energy, a largest rank, other maps, NaN", S, float, double) {
    const vector<double> s = power_law(100, 0.8);
    const auto w = with_values<S>(100, 120, s, 5);
    const auto f = adaptive_svd(w, {.tolerance = tolerance_for_energy(0.9), .block = 8});
    REQUIRE(f);
    const double kept = f.s.template cast<double>().squaredNorm();
    CHECK(kept >= 0.9 * s.squaredNorm() * (1 - 1e-4));
    CHECK(f.s.size() <= rank_from_energy(s, 0.9) + 3);

    const auto g = adaptive_svd(w, {.tolerance = 1e-3, .max_rank = 10, .block = 8});
    REQUIRE(g);
    CHECK(g.s.size() == 10);
    CHECK(g.error.frobenius == doctest::Approx(true_error(w, g)).epsilon(1e-3));
    CHECK(g.error.frobenius <= 1.01 * s.tail(90).norm());

    const any_operator<S> hidden(as_operator(w));
    const auto h = adaptive_svd(hidden, {.tolerance = 0.2, .block = 8, .error_samples = 64});
    REQUIRE(h);
    CHECK(h.error.how == error_source::sampled);
    CHECK(true_error(w, h) <= 0.2 * s.norm() * (1 + 4 * h.error.deviation));

    auto bad = w;
    bad(3, 3) = std::numeric_limits<S>::infinity();
    CHECK(adaptive_svd(bad, {}).why.code == errc::non_finite);
    CHECK(adaptive_svd(bad, {}).why.message.starts_with("adaptive_svd: "));
    CHECK_THROWS_AS((void)adaptive_svd(w, {.tolerance = -1.0}), contract_violation);
    CHECK(static_cast<bool>(adaptive_svd(matrix<S>(0, 4))));
    CHECK_THROWS_AS((void)tolerance_for_energy(1.5), contract_violation);
}

TEST_CASE("the tolerance is kept at every scale") {
    const matrix<double> w = with_values<double>(40, 30, geometric(30, 1.0, 0.8), 5);
    const idx rank = adaptive_svd(w, {.tolerance = 0.1}).s.size();
    for (const double scale : {1e-290, 1e-200, 1e200, 1e290}) {
        const auto f = adaptive_svd(matrix<double>(w * scale), {.tolerance = 0.1});
        REQUIRE(f);
        CHECK(f.s.size() == rank);
        CHECK(f.error.relative <= 0.1);
    }
}

TEST_CASE("what denormal singular values cannot hold stands in the factors") {
    for (const unsigned seed : {5U, 10U, 11U}) {
        const matrix<float> w = gaussian<float>(40, 30, seed) * 1e-41F;
        for (const bool tall : {true, false}) {
            const auto f = adaptive_svd(tall ? w : matrix<float>(w.transpose()), {.tolerance = 0.0});
            REQUIRE(f);
            CHECK(f.s.size() == 30);
            CHECK(f.error.relative < 1e-6);  // values rounded to a multiple of 2^-149 alone make it 5e-6
            CHECK(orthogonality_defect(f.u) < 1e-4);
            CHECK(orthogonality_defect(f.v) < 1e-4);
        }
    }
}

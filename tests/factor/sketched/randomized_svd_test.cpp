// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/sketched/adaptive_svd.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>

#include <cstdint>
#include <limits>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("close to optimal, never better than optimal, and the reported error is the true one", S, float,
                   double) {
    for (const double power : {0.5, 1.0, 3.0}) {
        const vector<double> s = power_law(80, power);
        const auto w = with_values<S>(120, 80, s, 1);
        for (const idx k : {idx{1}, idx{8}, idx{30}}) {
            const auto f = randomized_svd(w, k, {.power_iterations = 3});
            check_factors(w, f, k);
            const double best = s.tail(80 - k).norm();
            const double error = true_error(w, f);
            CHECK(error >= best * (1 - 100 * eps<S>));
            CHECK(error <= best * 1.02);
            CHECK(std::abs(f.error.frobenius - error) <= (f.error.deviation + 1e-12) * error);
            CHECK(f.error.relative == doctest::Approx(f.error.frobenius / s.norm()).epsilon(1e-4));
            for (idx i = 0; i < k; ++i) {
                CHECK(static_cast<double>(f.s(i)) <= s(i) + 20 * eps<S>);
            }
        }
    }
}

TEST_CASE_TEMPLATE("exact low rank is found exactly, and the error is then rounding", S, float, double) {
    const auto w = with_values<S>(60, 90, geometric(6, 2.0, 0.5), 2);
    const auto f = randomized_svd(w, 10, {.power_iterations = 1});
    check_factors(w, f, 10);
    CHECK(true_error(w, f) < 50 * eps<S>);
    CHECK(f.error.how == error_source::residual);
    CHECK(f.error.frobenius < 50 * eps<S>);
    CHECK(static_cast<double>(f.s(6)) < 50 * eps<S>);
    for (idx i = 0; i < 6; ++i) {
        CHECK(static_cast<double>(f.s(i)) == doctest::Approx(2.0 * std::pow(0.5, i)).epsilon(20 * eps<S>));
    }
}

TEST_CASE_TEMPLATE("full rank is the full decomposition", S, float, double) {
    const auto w = gaussian<S>(12, 30, 3);
    const auto f = randomized_svd(w, 12);
    check_factors(w, f, 12);
    const auto g = svd(w);
    CHECK((f.s - g.s).cwiseAbs().maxCoeff() < 20 * eps<S> * static_cast<double>(g.s(0)));
}

TEST_CASE_TEMPLATE("any linear operator, with an error estimated from columns held back", S, float, double) {
    const vector<double> s = power_law(70, 0.6);
    const auto w = with_values<S>(70, 100, s, 4);
    const any_operator<S> hidden(as_operator(w));
    const auto f = randomized_svd(hidden, 10, {.error_samples = 64});
    check_factors(w, f, 10);
    CHECK(f.error.how == error_source::sampled);
    const double error = true_error(w, f);
    // Four standard deviations at most; the tail is nearly flat, so the estimate is in fact closer.
    CHECK(std::abs(f.error.frobenius - error) < 4 * f.error.deviation * error);
    CHECK(f.error.relative == doctest::Approx(error / s.norm()).epsilon(0.2));

    // The same map, seen as dense, has the same factors and an exact error.
    const auto g = randomized_svd(as_operator(w), 10, {.error_samples = 64});
    CHECK(g.error.how == error_source::difference);
    CHECK((f.s - g.s).cwiseAbs().maxCoeff() < 20 * eps<S>);

    // A product of two factors, never formed.
    const low_rank<S> thin{.left = gaussian<S>(50, 3, 5), .right = gaussian<S>(3, 40, 6)};
    const auto h = randomized_svd(thin, 5);
    REQUIRE(h);
    CHECK(relative_difference(h.product().dense(), thin.dense()) < 50 * eps<S>);
    CHECK(h.error.relative < 50 * eps<S>);
}

TEST_CASE_TEMPLATE("a seed names a result, another seed another sketch", S, float, double) {
    const auto w = with_values<S>(60, 50, power_law(50, 0.3), 7);
    const auto a = randomized_svd(w, 5, {.power_iterations = 0, .seed = 3});
    const auto b = randomized_svd(w, 5, {.power_iterations = 0, .seed = 3});
    const auto c = randomized_svd(w, 5, {.power_iterations = 0, .seed = 4});
    CHECK(a.u == b.u);
    CHECK(a.s == b.s);
    CHECK(a.v == b.v);
    CHECK(a.s != c.s);
    // Power iterations pay: the error falls towards the optimum.
    double last = a.error.frobenius;
    for (int q = 1; q <= 4; ++q) {
        const double error = randomized_svd(w, 5, {.power_iterations = q, .seed = 3}).error.frobenius;
        CHECK(error <= last * (1 + 1e-5));
        last = error;
    }
}

TEST_CASE_TEMPLATE("extreme scales, zero, empty, rank zero", S, float, double) {
    const auto w = with_values<S>(30, 20, geometric(20, 1.0, 0.7), 8);
    const auto one = randomized_svd(w, 4);
    for (const S scale : {S(1e-30), S(1e30)}) {
        const auto f = randomized_svd(matrix<S>(w * scale), 4);
        REQUIRE(f);
        CHECK(relative_difference(vector<S>(f.s / scale), one.s) < 20 * eps<S>);
        CHECK(f.error.relative == doctest::Approx(one.error.relative).epsilon(1e-3));
    }
    const auto zero = randomized_svd(matrix<S>(matrix<S>::Zero(9, 7)), 3);
    REQUIRE(zero);
    CHECK(zero.s.isZero(S(0)));
    CHECK(zero.error.frobenius == 0.0);
    CHECK(orthogonality_defect(zero.u) < 10 * eps<S>);

    const auto none = randomized_svd(w, 0, {.oversample = 0});
    REQUIRE(none);
    CHECK(none.error.frobenius == doctest::Approx(w.template cast<double>().norm()).epsilon(10 * eps<S>));
    const auto empty = randomized_svd(matrix<S>(0, 7), 0);
    REQUIRE(empty);
    CHECK(empty.v.rows() == 7);
}

TEST_CASE_TEMPLATE("few columns are all sketched, although a square matrix of signs may be singular", S, float,
                   double) {
    for (idx cols = 1; cols <= 6; ++cols) {
        for (std::uint64_t seed = 0; seed < 30; ++seed) {
            const auto w = gaussian<S>(40, cols, 50 + seed);
            const auto f = randomized_svd(w, cols, {.oversample = 0, .power_iterations = 0, .seed = seed});
            REQUIRE(f);
            CHECK(relative_residual(w.template cast<double>(), f) < 100 * eps<S>);
        }
    }
}

TEST_CASE("values beyond the range of the scalar are a status") {
    const matrix<float> w = matrix<float>::Constant(1, 3, 2.2e38F);  // of norm 3.8e38
    for (const auto& f : {randomized_svd(w, 1), krylov_svd(w, 1), truncated_svd(w, 1), adaptive_svd(w)}) {
        CHECK_FALSE(f);
        CHECK(f.why.code == errc::non_finite);
    }
}

TEST_CASE_TEMPLATE("NaN anywhere is a status", S, float, double) {
    matrix<S> broken = gaussian<S>(5, 4, 9);
    broken(3, 1) = std::numeric_limits<S>::quiet_NaN();
    CHECK(randomized_svd(broken, 0, {.oversample = 0}).why.code == errc::non_finite);
    CHECK(krylov_svd(broken, 0).why.code == errc::non_finite);
    for (const S bad : {std::numeric_limits<S>::quiet_NaN(), std::numeric_limits<S>::infinity()}) {
        auto w = gaussian<S>(20, 15, 9);
        w(19, 14) = bad;
        const auto f = randomized_svd(w, 2, {.power_iterations = 0});
        CHECK(f.why.code == errc::non_finite);
        CHECK(f.u.size() == 0);
        CHECK(randomized_svd(any_operator<S>(as_operator(w)), 2).why.code == errc::non_finite);
    }
    CHECK_THROWS_WITH_AS((void)randomized_svd(gaussian<S>(4, 6, 1), 5), "randomized_svd: rank must be in [0, 4], got 5",
                         contract_violation);
    CHECK_THROWS_AS((void)randomized_svd(gaussian<S>(4, 6, 1), 2, {.oversample = -1}), contract_violation);
}

TEST_CASE("without oversampling and powers the range of small and regular matrices is found, whatever the seed") {
    const matrix<double> ones = matrix<double>::Ones(60, 40);
    const matrix<double> diagonal = vector<double>::LinSpaced(3, 0.0, 2.0).asDiagonal();
    matrix<double> alike(2, 2);
    alike << -896, -896, -19, -19;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        CAPTURE(seed);
        const randomized_svd_options bare{.oversample = 0, .power_iterations = 0, .seed = seed};
        CHECK(randomized_svd(ones, 1, bare).error.relative < 1e-9);
        CHECK(randomized_svd(diagonal, 2, bare).error.relative < 1e-9);
        CHECK(randomized_svd(alike, 1, bare).error.relative < 1e-9);
    }
}

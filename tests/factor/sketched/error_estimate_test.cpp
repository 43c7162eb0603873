// SPDX-License-Identifier: MIT
#include <lowrank/factor/sketched/error_estimate.hpp>

#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/svd.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("the bounds enclose the spectral norm and tighten with powers", S, float, double) {
    int outside = 0;
    for (std::uint64_t t = 0; t < 20; ++t) {
        const auto w = with_values<S>(40, 60, power_law(40, 0.3), 100 + t);  // norm 1
        double last = 1e300;
        for (int q = 0; q <= 6; q += 2) {
            const auto e = spectral_norm(w, {.samples = 8, .power_iterations = q, .seed = t});
            REQUIRE(e);
            CHECK(e.lower <= 1.0 + 20 * eps<S>);
            outside += e.upper < 1.0 ? 1 : 0;
            CHECK(e.confidence == doctest::Approx(1.0 - 1.0 / 256.0));
            CHECK(e.upper <= last * 1.05);
            last = e.upper;
        }
        CHECK(last < 1.25);
    }
    CHECK(outside <= 2);  // 80 trials, each wrong with probability below 1/256
}

TEST_CASE_TEMPLATE("the rest of a factorization is a map whose norm is the first value dropped", S, float, double) {
    const vector<double> s = power_law(50, 1.0);
    const auto w = with_values<S>(70, 50, s, 1);
    const auto f = randomized_svd(w, 9, {.power_iterations = 4});
    const auto rest = residual(w, f);
    const auto x = gaussian<S>(50, 3, 2);
    CHECK(relative_difference(apply(rest, x), ((w - f.product().dense()) * x).eval()) < 200 * eps<S>);
    const auto e = spectral_norm(rest, {.power_iterations = 8});
    REQUIRE(e);
    CHECK(e.lower >= s(9) * 0.98);
    CHECK(e.lower <= s(9) * 1.05);
    CHECK(e.upper >= s(9));
    CHECK(e.upper <= s(9) * 1.3);
}

TEST_CASE_TEMPLATE("leaving one out is what really happens to a sketch of one column less", S, float, double) {
    const auto w = with_values<S>(60, 80, power_law(60, 0.8), 3);
    const idx width = 12;
    const auto omega = sign_sketch<S>(80, width, philox(5));
    const matrix<S> y = w * omega;
    // By definition: predict A omega_i from the other columns.
    double sum = 0.0;
    for (idx i = 0; i < width; ++i) {
        matrix<double> others(60, width - 1);
        others << y.leftCols(i).template cast<double>(), y.rightCols(width - 1 - i).template cast<double>();
        const matrix<double> q = lowrank_tests::orthonormal_basis(others);
        const vector<double> column = y.col(i).template cast<double>();
        sum += (column - q * (q.transpose() * column)).squaredNorm();
    }
    const double estimate = leave_one_out_error(y);
    CHECK(estimate == doctest::Approx(std::sqrt(sum / width)).epsilon(1e-9));

    // And on average it is the true error of the smaller sketch.
    double estimated = 0.0;
    double truth = 0.0;
    for (std::uint64_t t = 0; t < 30; ++t) {
        const matrix<S> sample = w * sign_sketch<S>(80, width, philox(t, 1));
        estimated += std::pow(leave_one_out_error(sample), 2);
        matrix<S> q = sample.leftCols(width - 1);
        orthonormalize(q);
        const matrix<S> rest = w - q * (q.transpose() * w);
        truth += rest.template cast<double>().squaredNorm();
    }
    CHECK(estimated == doctest::Approx(truth).epsilon(0.1));
}

TEST_CASE_TEMPLATE("zero, empty, dependent, NaN, extreme scales", S, float, double) {
    const auto zero = spectral_norm(matrix<S>(matrix<S>::Zero(4, 6)));
    REQUIRE(zero);
    CHECK(zero.upper == 0.0);
    CHECK(zero.lower == 0.0);
    CHECK(spectral_norm(matrix<S>(0, 6)).upper == 0.0);
    const auto w = with_values<S>(20, 30, power_law(20, 0.5), 6);
    for (const double scale : {1e-30, 1e30}) {
        const auto e = spectral_norm(matrix<S>(w * static_cast<S>(scale)));
        REQUIRE(e);
        CHECK(e.lower > 0.5 * scale);
        CHECK(e.upper < 3.0 * scale);
    }
    auto bad = w;
    bad(2, 2) = std::numeric_limits<S>::quiet_NaN();
    CHECK(spectral_norm(bad).why.code == errc::non_finite);
    CHECK_THROWS_AS((void)spectral_norm(w, {.samples = 0}), contract_violation);

    matrix<S> y = gaussian<S>(10, 4, 7);
    y.col(3) = y.col(0);
    CHECK(leave_one_out_error(y) < 1e-6);
    CHECK(leave_one_out_error(matrix<S>(10, 0)) == 0.0);
    CHECK(leave_one_out_error(matrix<S>(matrix<S>::Zero(5, 2))) == 0.0);
    CHECK_THROWS_AS((void)leave_one_out_error(gaussian<S>(3, 4, 1)), contract_violation);
}

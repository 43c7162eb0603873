// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/weighted/shared_basis.hpp>

#include <limits>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("weights that read one subspace share it exactly; the error is the distance", S, float, double) {
    const matrix<S> basis = gaussian<S>(6, 30, 1);
    std::vector<matrix<S>> weights;
    for (std::uint64_t g = 0; g < 3; ++g) {
        weights.push_back(gaussian<S>(10 + 4 * static_cast<idx>(g), 6, 10 + g) * basis);
    }
    const auto f = shared_basis<S>(weights, 6);
    REQUIRE(f);
    CHECK(f.relative < 100 * eps<S>);
    CHECK(f.parameters == 6 * (10 + 14 + 18 + 30));
    CHECK(f.separate_relative > 0.1);
    for (std::size_t g = 0; g < 3; ++g) {
        CHECK(relative_difference((f.coefficients[g] * f.basis).eval(), weights[g]) < 100 * eps<S>);
    }

    weights.push_back(gaussian<S>(8, 30, 20));
    const matrix<double> x = gaussian<double>(30, 12, 21);  // fewer samples than inputs
    for (const auto& right : {weighting(), *gram_weighting(x * x.transpose())}) {
        const auto h = shared_basis<S>(weights, 4, right);
        REQUIRE(h);
        double error = 0.0;
        double whole = 0.0;
        for (std::size_t g = 0; g < weights.size(); ++g) {
            const matrix<double> w = weights[g].template cast<double>();
            const matrix<double> rest = w - h.coefficients[g].template cast<double>() * h.basis.template cast<double>();
            error += right.times_root(rest).squaredNorm();
            whole += right.times_root(w).squaredNorm();
        }
        CHECK(h.error == doctest::Approx(std::sqrt(error)).epsilon(1e4 * eps<S>));
        CHECK(h.relative == doctest::Approx(std::sqrt(error / whole)).epsilon(1e4 * eps<S>));
    }
}

TEST_CASE_TEMPLATE("weights with nothing in common are better off alone, and the result says so", S, float, double) {
    std::vector<matrix<S>> weights;
    for (std::uint64_t g = 0; g < 3; ++g) {
        weights.push_back(with_values<S>(20, 40, geometric(4, 1.0, 0.9), 30 + g));
    }
    const auto f = shared_basis<S>(weights, 9);
    REQUIRE(f);
    CHECK(f.separate_relative < f.relative);
    const auto one = shared_basis<S>(std::span<const matrix<S>>(weights.data(), 1), 3);
    REQUIRE(one);
    CHECK(one.separate_relative == doctest::Approx(one.relative).epsilon(1e-4));
}

TEST_CASE("zeros, NaN, contracts") {
    std::vector<matrix<float>> weights{matrix<float>::Zero(3, 5)};
    const auto zero = shared_basis<float>(weights, 2);
    REQUIRE(zero);
    CHECK(zero.relative == 0.0);
    weights.push_back(matrix<float>::Constant(2, 5, std::numeric_limits<float>::quiet_NaN()));
    CHECK_THROWS_WITH_AS((void)shared_basis<float>(weights, 6), "shared_basis: rank must be in [0, 5], got 6",
                         contract_violation);
    const auto broken = shared_basis<float>(weights, 2);
    CHECK(broken.why.code == errc::non_finite);
    CHECK(broken.why.message.starts_with("shared_basis: "));
    weights.back() = matrix<float>(2, 4);
    CHECK_THROWS_AS((void)shared_basis<float>(weights, 2), contract_violation);
    CHECK_THROWS_AS((void)shared_basis<float>({}, 2), contract_violation);
}

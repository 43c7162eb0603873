// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/subspace.hpp>

#include <cmath>
#include <limits>
#include <numbers>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("similarity is one inside, zero across, symmetric, and free of the basis", S, float, double) {
    const matrix<double> q = orthonormal(40, 20, 1);
    const matrix<S> u = q.leftCols(8).cast<S>();
    const matrix<S> v = q.rightCols(12).cast<S>();
    CHECK(subspace_similarity(u, u, 8, 8) == doctest::Approx(1.0).epsilon(1e-6));
    CHECK(subspace_similarity(u, u, 3, 8) == doctest::Approx(1.0).epsilon(1e-6));
    CHECK(subspace_similarity(u, v, 8, 12) < 1e-10);
    const matrix<S> turned = u * orthonormal(8, 8, 2).cast<S>();
    CHECK(subspace_similarity(u, turned, 8, 8) == doctest::Approx(1.0).epsilon(1e-6));

    const matrix<S> w = orthonormal(40, 10, 3).cast<S>();
    const auto all = subspace_similarities(u, w);
    for (idx i = 1; i <= 8; ++i) {
        for (idx j = 1; j <= 10; ++j) {
            const double phi = subspace_similarity(u, w, i, j);
            CHECK(all(i - 1, j - 1) == doctest::Approx(phi).epsilon(1e-12));
            CHECK(subspace_similarity(w, u, j, i) == doctest::Approx(phi).epsilon(1e-12));
            CHECK(phi >= 0.0);
            CHECK(phi <= 1.0 + 1e-6);
        }
    }
    CHECK_THROWS_AS((void)subspace_similarity(u, w, 9, 1), contract_violation);
    CHECK_THROWS_AS((void)subspace_similarity(u, w, 0, 1), contract_violation);
}

TEST_CASE("random subspaces of dimensions i and j are max(i, j) / n similar on average") {
    double sum = 0.0;
    for (std::uint64_t t = 0; t < 40; ++t) {
        sum += subspace_similarity(orthonormal(50, 5, 10 + t), orthonormal(50, 12, 100 + t), 5, 12);
    }
    CHECK(sum / 40 == doctest::Approx(12.0 / 50.0).epsilon(0.1));
}

TEST_CASE_TEMPLATE("principal angles that were built in are found, tiny ones with their digits", S, float, double) {
    const matrix<double> q = orthonormal(30, 8, 4);
    const vector<double> want = (vector<double>(4) << 1e-12, 1e-5, 0.7, std::numbers::pi / 2).finished();
    matrix<double> b(30, 4);
    for (idx i = 0; i < 4; ++i) {
        b.col(i) = std::cos(want(i)) * q.col(i) + std::sin(want(i)) * q.col(i + 4);
    }
    // Any basis of the same spaces, badly scaled.
    const matrix<double> mix = gaussian<double>(4, 4, 5);
    const matrix<S> x = (q.leftCols(4) * mix).cast<S>();
    const matrix<S> y = (b * orthonormal(4, 4, 6) * 1e3).cast<S>();
    const auto angles = principal_angles(x, y);
    REQUIRE(angles);
    const double rounding = std::is_same_v<S, float> ? 1e-5 : 1e-13;
    for (idx i = 0; i < 4; ++i) {
        CHECK(std::abs((*angles)(i)-want(i)) < rounding);
    }
    const auto back = principal_angles(y, x);
    REQUIRE(back);
    CHECK((*back - *angles).cwiseAbs().maxCoeff() < rounding);

    // A line inside a space: angle zero.
    const auto inside = principal_angles(matrix<S>(x.col(2)), x);
    REQUIRE(inside);
    CHECK(inside->size() == 1);
    CHECK((*inside)(0) < rounding);
}

TEST_CASE("empty spaces have no angles; NaN is a status") {
    const auto none = principal_angles(matrix<double>(5, 0), gaussian<double>(5, 2, 7));
    REQUIRE(none);
    CHECK(none->size() == 0);
    matrix<double> bad = gaussian<double>(5, 2, 8);
    bad(1, 1) = std::numeric_limits<double>::infinity();
    CHECK(principal_angles(bad, bad).error().code == errc::non_finite);
    CHECK_THROWS_AS((void)principal_angles(gaussian<double>(4, 2, 1), gaussian<double>(5, 2, 1)), contract_violation);
    CHECK_THROWS_AS((void)principal_angles(gaussian<double>(2, 4, 1), gaussian<double>(2, 1, 1)), contract_violation);
}

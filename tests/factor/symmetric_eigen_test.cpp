// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("eigenvalues descend, vectors are orthonormal and reproduce the matrix", S, float, double) {
    for (const idx n : {idx{1}, idx{2}, idx{17}, idx{33}, idx{80}, idx{150}}) {
        const matrix<S> a = gaussian<S>(n, n, 1);
        const matrix<S> g = a + a.transpose();
        const auto e = symmetric_eigen(g);
        REQUIRE(e);
        CHECK(std::is_sorted(e.values.begin(), e.values.end(), std::greater<>()));
        CHECK(orthogonality_defect(e.vectors) < 40 * eps<double> * std::sqrt(static_cast<double>(n)));
        const matrix<double> product = e.vectors * e.values.asDiagonal() * e.vectors.transpose();
        CHECK(relative_difference(product, g) < 40 * eps<double> * std::sqrt(static_cast<double>(n)));

        const auto values = symmetric_eigen(g, false);
        REQUIRE(values);
        CHECK(values.vectors.size() == 0);
        CHECK((values.values - e.values).cwiseAbs().maxCoeff() < 40 * eps<double> * e.values.cwiseAbs().maxCoeff());
    }
}

TEST_CASE("known eigenvalues: the second difference matrix has 2 - 2 cos(pi k / (n + 1))") {
    const idx n = 30;
    matrix<double> g = matrix<double>::Identity(n, n) * 2.0;
    g.diagonal(-1).setConstant(-1.0);  // the upper triangle is not read
    const auto e = symmetric_eigen(g);
    REQUIRE(e);
    for (idx k = 1; k <= n; ++k) {
        const double want =
            2.0 - 2.0 * std::cos(std::numbers::pi * static_cast<double>(k) / static_cast<double>(n + 1));
        CHECK(e.values(n - k) == doctest::Approx(want).epsilon(1e-13));
    }
}

namespace {

/// Residual and orthogonality of both modes, relative to the largest value.
void check_hard_case(const char* name, const matrix<double>& g) {
    CAPTURE(name);
    const idx n = g.rows();
    const double bound = 40 * eps<double> * std::sqrt(static_cast<double>(n));
    const auto e = symmetric_eigen(g);
    REQUIRE(e);
    CHECK(orthogonality_defect(e.vectors) < bound);
    const matrix<double> product = e.vectors * e.values.asDiagonal() * e.vectors.transpose();
    CHECK((product - g).norm() <= bound * g.norm());
    const auto values = symmetric_eigen(g, false);
    REQUIRE(values);
    CHECK((values.values - e.values).cwiseAbs().maxCoeff() <= bound * e.values.cwiseAbs().maxCoeff());
}

}  // namespace

TEST_CASE("clusters, low rank, gradings and decoupled blocks, beyond the size of a leaf") {
    const idx n = 100;
    const matrix<double> a = gaussian<double>(n, n, 3);
    const matrix<double> g = a + a.transpose();
    const matrix<double> half = gaussian<double>(n, n / 3, 4);
    check_hard_case("low rank", half * half.transpose());
    check_hard_case("rank one", matrix<double>::Constant(n, n, 0.1));
    check_hard_case("one cluster", matrix<double>(matrix<double>::Identity(n, n)) + 1e-14 * g);
    const vector<double> falling = geometric(n, 1.0, 0.5);
    check_hard_case("graded down", falling.asDiagonal() * g * falling.asDiagonal());
    const vector<double> rising = falling.reverse();
    check_hard_case("graded up", rising.asDiagonal() * g * rising.asDiagonal());
    matrix<double> blocks = g;
    blocks.topRightCorner(n / 2, n / 2).setZero();
    blocks.bottomLeftCorner(n / 2, n / 2).setZero();
    check_hard_case("blocks", blocks);
    check_hard_case("diagonal", matrix<double>(gaussian<double>(n, 1, 5).col(0).asDiagonal()));
    // Wilkinson's: pairs of eigenvalues that agree to all digits, with vectors that do not couple.
    matrix<double> pairs = matrix<double>::Zero(n, n);
    for (idx i = 0; i < n; ++i) {
        pairs(i, i) = std::abs(static_cast<double>(i) - 0.5 * static_cast<double>(n - 1));
        if (i > 0) {
            pairs(i, i - 1) = pairs(i - 1, i) = 1.0;
        }
    }
    check_hard_case("Wilkinson", pairs);
}

TEST_CASE("zero, empty, extreme scales and NaN have defined answers") {
    const auto zero = symmetric_eigen(matrix<double>(matrix<double>::Zero(4, 4)));
    REQUIRE(zero);
    CHECK(zero.values.isZero(0.0));
    CHECK(orthogonality_defect(zero.vectors) == 0.0);

    const auto empty = symmetric_eigen(matrix<float>(0, 0));
    CHECK(static_cast<bool>(empty));
    CHECK(empty.values.size() == 0);

    for (const double scale : {1e-300, 1e-30, 1e30, 1e300}) {
        const matrix<double> a = gaussian<double>(6, 6, 2);
        const matrix<double> g = (a + a.transpose()) * scale;
        const auto e = symmetric_eigen(g);
        REQUIRE(e);
        const matrix<double> product = e.vectors * (e.values / scale).asDiagonal() * e.vectors.transpose();
        CHECK(relative_difference(product, (g / scale).eval()) < 1e-14);
    }

    matrix<float> g = matrix<float>::Identity(3, 3);
    g(2, 1) = std::numeric_limits<float>::quiet_NaN();
    const auto bad = symmetric_eigen(g);
    CHECK_FALSE(static_cast<bool>(bad));
    CHECK(bad.why.code == errc::non_finite);
    CHECK(bad.values.size() == 0);
    CHECK_THROWS_AS((void)symmetric_eigen(matrix<float>(2, 3)), contract_violation);
}

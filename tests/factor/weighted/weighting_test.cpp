// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/weighted/weighting.hpp>

#include <limits>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// F F^T, from what the weighting does to a matrix.
matrix<double> square_of(const weighting& m, idx n) {
    const matrix<double> root = m.times_root(matrix<double>::Identity(n, n));
    return root * root.transpose();
}

/// The four laws of Moore and Penrose for L = F^T and its `apply_root_pinv`.
void check_pseudo_inverse(const weighting& m, idx n) {
    const matrix<double> root = m.times_root(matrix<double>::Identity(n, n));  // F
    const matrix<double> l = root.transpose();
    const matrix<double> inverse = m.apply_root_pinv(matrix<double>::Identity(l.rows(), l.rows()));
    const double scale = l.norm();
    CHECK((l * inverse * l - l).norm() < 1e-9 * scale);
    CHECK((inverse * l * inverse - inverse).norm() < 1e-9 * inverse.norm());
    const matrix<double> a = l * inverse;
    const matrix<double> b = inverse * l;
    CHECK((a - a.transpose()).norm() < 1e-9);
    CHECK((b - b.transpose()).norm() < 1e-9);
}

}  // namespace

TEST_CASE("each weighting squares to its matrix and undoes itself") {
    const idx n = 9;
    const matrix<double> x = gaussian<double>(n, 30, 1);
    const matrix<double> c = x * x.transpose();

    CHECK(weighting().kind() == weighting_kind::identity);
    CHECK(square_of(weighting(), n) == matrix<double>::Identity(n, n));
    check_pseudo_inverse(weighting(), n);

    vector<double> weights = vector<double>::LinSpaced(n, 0.5, 3.0);
    weights(4) = 0.0;
    const auto diagonal = diagonal_weighting(weights);
    CHECK(relative_difference(square_of(diagonal, n), matrix<double>(weights.cwiseAbs2().asDiagonal())) < 1e-15);
    CHECK(diagonal.null_directions() == 1);
    check_pseudo_inverse(diagonal, n);

    const auto cholesky = gram_weighting(c);
    REQUIRE(cholesky);
    CHECK(cholesky->kind() == weighting_kind::cholesky);
    CHECK(relative_difference(square_of(*cholesky, n), c) < 1e-13);
    check_pseudo_inverse(*cholesky, n);

    const auto spectral = gram_weighting(c, false);
    REQUIRE(spectral);
    CHECK(spectral->kind() == weighting_kind::spectral);
    CHECK(relative_difference(square_of(*spectral, n), c) < 1e-13);
    check_pseudo_inverse(*spectral, n);

    const auto triangle = triangle_weighting(x.transpose());
    REQUIRE(triangle);
    CHECK(relative_difference(square_of(*triangle, n), c) < 1e-13);
    check_pseudo_inverse(*triangle, n);

    const auto ridge = ridge_weighting(c, 2.0);
    REQUIRE(ridge);
    CHECK(relative_difference(square_of(*ridge, n), (c + 2.0 * matrix<double>::Identity(n, n)).eval()) < 1e-13);
}

TEST_CASE("singular and nearly singular matrices fall back to eigenvectors above rounding") {
    const idx n = 12;
    matrix<double> x = gaussian<double>(n, 5, 2);  // fewer samples than channels
    x.row(3).setZero();                            // a dead channel
    x.row(7) = x.row(8);                           // a duplicated one
    const matrix<double> c = x * x.transpose();
    const auto m = gram_weighting(c);
    REQUIRE(m);
    CHECK(m->kind() == weighting_kind::spectral);
    CHECK(m->null_directions() == n - 5);
    CHECK(relative_difference(square_of(*m, n), c) < 1e-12);
    check_pseudo_inverse(*m, n);

    const auto zero = gram_weighting(matrix<double>::Zero(4, 4));
    REQUIRE(zero);
    CHECK(zero->null_directions() == 4);
    CHECK(square_of(*zero, 4) == matrix<double>::Zero(4, 4));

    // Channels that differ by 1e8 in size are not a singular weighting.
    matrix<double> graded = gaussian<double>(6, 40, 3);
    graded.row(2) *= 1e-8;
    const auto cholesky = gram_weighting(graded * graded.transpose());
    REQUIRE(cholesky);
    CHECK(cholesky->kind() == weighting_kind::cholesky);
    for (const double scale : {1e-60, 1e60}) {
        const auto scaled = gram_weighting(matrix<double>(c * scale));
        REQUIRE(scaled);
        CHECK(scaled->null_directions() == n - 5);
    }
}

TEST_CASE("what is no weighting says so") {
    matrix<double> c = matrix<double>::Identity(3, 3);
    c(1, 1) = -1.0;
    CHECK(gram_weighting(c).error().code == errc::mismatch);
    c(1, 1) = std::numeric_limits<double>::quiet_NaN();
    CHECK(gram_weighting(c).error().code == errc::non_finite);
    CHECK(triangle_weighting(c).error().code == errc::non_finite);
    CHECK_THROWS_AS((void)gram_weighting(matrix<double>(2, 3)), contract_violation);
    CHECK_THROWS_AS((void)diagonal_weighting(vector<double>::Constant(2, -1.0)), contract_violation);
    CHECK_THROWS_AS((void)ridge_weighting(c, -1.0), contract_violation);
    CHECK_THROWS_AS((void)diagonal_weighting(vector<double>::Ones(2)).times_root(matrix<double>::Ones(1, 3)),
                    contract_violation);
    CHECK(gram_weighting(matrix<double>(0, 0)).has_value());
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/weighted/statistics.hpp>

#include <limits>

#include <Eigen/SVD>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("sums over batches and shards are the sums over everything", S, float, double) {
    const auto x = gaussian<S>(12, 90, 1);
    const matrix<double> wide = x.template cast<double>();

    gram_accumulator gram(12);
    gram_accumulator gram_rest(12);
    qr_accumulator triangle(12);
    qr_accumulator triangle_rest(12);
    moment_accumulator moment(12);
    moment_accumulator moment_rest(12);
    for (idx first = 0; first < 90; first += 10) {
        const matrix<S> batch = x.middleCols(first, 10);
        CHECK(static_cast<bool>((first < 30 ? gram : gram_rest).add(batch)));
        CHECK(static_cast<bool>((first < 30 ? triangle : triangle_rest).add(batch)));
        CHECK(static_cast<bool>((first < 30 ? moment : moment_rest).add(batch)));
    }
    gram.merge(gram_rest);
    triangle.merge(triangle_rest);
    moment.merge(moment_rest);

    const matrix<double> want = wide * wide.transpose();
    CHECK(gram.count() == 90);
    CHECK(relative_difference(gram.sum(), want) < 1e-14);
    CHECK(triangle.count() == 90);
    CHECK(triangle.triangle().rows() == 12);
    CHECK(relative_difference((triangle.triangle().transpose() * triangle.triangle()).eval(), want) < 1e-13);
    CHECK(moment.count() == 90);
    CHECK(relative_difference(moment.mean_abs(), (wide.cwiseAbs().rowwise().sum() / 90).eval()) < 1e-14);
    CHECK(relative_difference(moment.root_mean_square(), (want.diagonal() / 90).cwiseSqrt().eval()) < 1e-14);
    CHECK(moment.max_abs() == wide.cwiseAbs().rowwise().maxCoeff());
}

TEST_CASE("a triangle keeps directions that a Gram matrix has lost") {
    matrix<double> x = gaussian<double>(5, 40, 2);
    x.row(4) = x.row(0) + 1e-11 * gaussian<double>(1, 40, 3);  // squared: 1e-22, below rounding
    qr_accumulator triangle(5);
    REQUIRE(triangle.add(x));
    const Eigen::JacobiSVD<matrix<double>> f(triangle.triangle());
    CHECK(f.singularValues()(4) > 1e-11);
    CHECK(f.singularValues()(4) < 1e-10);
}

TEST_CASE_TEMPLATE("Fisher sums are the row and column sums of squared gradients", S, float, double) {
    fisher_accumulator fisher(6, 4);
    fisher_accumulator other(6, 4);
    matrix<double> want = matrix<double>::Zero(6, 4);
    for (std::uint64_t i = 0; i < 5; ++i) {
        const auto g = gaussian<S>(6, 4, 10 + i);
        REQUIRE((i < 3 ? fisher : other).add(g));
        want += g.template cast<double>().cwiseAbs2() / 5;
    }
    fisher.merge(other);
    CHECK(fisher.count() == 5);
    CHECK(relative_difference(fisher.row_weights(), want.rowwise().sum().cwiseSqrt().eval()) < 1e-14);
    CHECK(relative_difference(fisher.column_weights(), want.colwise().sum().transpose().cwiseSqrt().eval()) < 1e-14);
}

TEST_CASE_TEMPLATE("a batch with NaN is refused and changes nothing; a wrong shape is a broken contract", S, float,
                   double) {
    matrix<S> bad = gaussian<S>(3, 5, 20);
    bad(2, 4) = std::numeric_limits<S>::quiet_NaN();
    gram_accumulator gram(3);
    qr_accumulator triangle(3);
    moment_accumulator moment(3);
    fisher_accumulator fisher(3, 5);
    CHECK(gram.add(bad).code == errc::non_finite);
    CHECK(triangle.add(bad).code == errc::non_finite);
    CHECK(moment.add(bad).code == errc::non_finite);
    CHECK(fisher.add(bad).code == errc::non_finite);
    CHECK(gram.count() + triangle.count() + moment.count() + fisher.count() == 0);
    CHECK(gram.sum().isZero(0.0));
    CHECK(triangle.triangle().rows() == 0);
    CHECK(moment.mean_abs().isZero(0.0));
    CHECK_THROWS_AS((void)gram.add(gaussian<S>(4, 2, 1)), contract_violation);
    CHECK_THROWS_AS(gram.merge(gram_accumulator(2)), contract_violation);
    CHECK_THROWS_AS((void)fisher.add(gaussian<S>(5, 3, 1)), contract_violation);
    REQUIRE(gram.add(matrix<S>(3, 0)));
    CHECK(gram.count() == 0);
}

TEST_CASE_TEMPLATE("accumulators take any matrix: blocks, expressions, row-major, 16 bits", S, float, double) {
    const matrix<S> x = gaussian<S>(6, 40, 91);
    const row_matrix<S> rows = x;
    gram_accumulator whole(6), parts(6), stored(6);
    REQUIRE(whole.add(x));
    REQUIRE(parts.add(x.leftCols(8)));
    REQUIRE(parts.add(rows.middleCols(8, 20)));
    REQUIRE(parts.add(x.rightCols(12) * S(1)));
    CHECK(parts.count() == 40);
    CHECK(relative_difference(parts.sum(), whole.sum()) < 1e-12);
    const matrix<bfloat16> half_size = x.template cast<bfloat16>();
    REQUIRE(stored.add(half_size));
    CHECK(relative_difference(stored.sum(), whole.sum()) < 0.02);
    qr_accumulator triangle(6), pieces(6);
    REQUIRE(triangle.add(rows));
    REQUIRE(pieces.add(x.leftCols(17)));
    REQUIRE(pieces.add(x.rightCols(23)));
    const matrix<double> t = pieces.triangle(), u = triangle.triangle();
    CHECK(relative_difference((t.transpose() * t).eval(), (u.transpose() * u).eval()) < 1e-10);
    moment_accumulator moments(6), both(6);
    REQUIRE(moments.add(x));
    REQUIRE(both.add(x.leftCols(20)));
    REQUIRE(both.add(x.rightCols(20)));
    CHECK(relative_difference(both.mean_abs(), moments.mean_abs()) < 1e-12);
    fisher_accumulator fisher(6, 40);
    REQUIRE(fisher.add(x * S(2)));
    CHECK(fisher.count() == 1);
    CHECK_THROWS_AS((void)whole.add(x.topRows(5)), contract_violation);
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/sketched/interpolative.hpp>

#include <limits>
#include <set>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("pivoted QR reproduces the matrix, its triangle descends, its error is exact", S, float, double) {
    for (const auto& shape : {std::pair<idx, idx>{30, 20}, {20, 30}, {1, 9}, {9, 1}}) {
        const row_matrix<S> w = gaussian<S>(shape.first, shape.second, 1);
        const matrix<double> wide = w.template cast<double>();
        const idx full = std::min(shape.first, shape.second);
        for (const idx k : {idx{0}, full / 2, full}) {
            const auto f = pivoted_qr(w, {.max_rank = k});
            REQUIRE(f);
            REQUIRE(static_cast<idx>(f.columns.size()) == k);
            CHECK(orthogonality_defect(f.q) < 20 * eps<S> * std::sqrt(30.0));
            const double rest = (wide - f.q.template cast<double>() * f.r.template cast<double>()).norm();
            CHECK(std::abs(rest - f.error) < 50 * eps<S> * wide.norm());
            CHECK(f.relative == doctest::Approx(f.error / wide.norm()).epsilon(1e-6));
            S last = std::numeric_limits<S>::max();
            for (idx j = 0; j < k; ++j) {
                const auto column = f.r.col(f.columns[static_cast<std::size_t>(j)]);
                CHECK(column(j) > S(0));
                CHECK(column(j) <= last * S(1 + 1e-5));
                last = column(j);
                CHECK((j + 1 == k || column.tail(k - j - 1).isZero(S(0))));
            }
        }
        const auto all = pivoted_qr(w).columns;
        CHECK(std::set<idx>(all.begin(), all.end()).size() == all.size());
    }
}

TEST_CASE_TEMPLATE("the rank is revealed, by tolerance and by rounding", S, float, double) {
    const auto w = with_values<S>(40, 50, geometric(7, 1.0, 0.5), 2);
    const auto f = pivoted_qr(w, {.tolerance = 100 * eps<S>});
    REQUIRE(f);
    CHECK(f.columns.size() == 7);
    const auto g = pivoted_qr(w, {.tolerance = 0.1});
    REQUIRE(g);
    CHECK(g.relative <= 0.1);
    CHECK(pivoted_qr(w, {.max_rank = static_cast<idx>(g.columns.size()) - 1}).relative > 0.1);
    const matrix<S> exact = (gaussian<S>(12, 3, 3) * S(4)).array().round().matrix() *
                            (gaussian<S>(3, 15, 4) * S(4)).array().round().matrix();
    CHECK(pivoted_qr(exact).columns.size() == 3);
    CHECK(pivoted_qr(matrix<S>(matrix<S>::Zero(4, 5))).columns.empty());
}

TEST_CASE_TEMPLATE("an interpolative decomposition is made of the matrix's own columns", S, float, double) {
    const vector<double> s = power_law(30, 1.5);
    const auto w = with_values<S>(40, 30, s, 5);
    for (const idx k : {idx{1}, idx{6}, idx{30}}) {
        const auto f = interpolative(w, k);
        REQUIRE(f);
        REQUIRE(static_cast<idx>(f.columns.size()) == k);
        matrix<S> chosen(40, k);
        for (idx j = 0; j < k; ++j) {
            chosen.col(j) = w.col(f.columns[static_cast<std::size_t>(j)]);
            CHECK(f.z.col(f.columns[static_cast<std::size_t>(j)]) == vector<S>::Unit(k, j));
        }
        const double rest =
            (w.template cast<double>() - chosen.template cast<double>() * f.z.template cast<double>()).norm();
        CHECK(std::abs(rest - f.error) < 1e3 * eps<S>);
        // Never better than the SVD; on such spectra at most a few times worse.
        CHECK(f.error >= s.tail(30 - k).norm() * (1 - 1e-5) - 10 * eps<S>);
        CHECK(f.error <= 4.0 * s.tail(30 - k).norm() + 1e3 * eps<S>);
    }
}

TEST_CASE_TEMPLATE("CUR is made of rows and columns, with the best middle", S, float, double) {
    const vector<double> s = power_law(25, 1.5);
    const auto w = with_values<S>(35, 25, s, 6);
    for (const idx k : {idx{1}, idx{8}, idx{25}}) {
        const auto f = cur(w, k);
        REQUIRE(f);
        for (idx j = 0; j < k; ++j) {
            CHECK(f.c.col(j) == w.col(f.columns[static_cast<std::size_t>(j)]));
            CHECK(f.r.row(j) == w.row(f.rows[static_cast<std::size_t>(j)]));
        }
        const double rest = (w.template cast<double>() -
                             f.c.template cast<double>() * f.u.template cast<double>() * f.r.template cast<double>())
                                .norm();
        CHECK(std::abs(rest - f.error) < 1e4 * eps<S>);
        CHECK(f.error >= s.tail(25 - k).norm() * (1 - 1e-5) - 10 * eps<S>);
        CHECK(f.error <= 8.0 * s.tail(25 - k).norm() + 1e4 * eps<S>);
        // No perturbed middle is better.
        for (std::uint64_t t = 0; t < 5; ++t) {
            const matrix<S> other = f.u + S(0.01) * gaussian<S>(k, k, 50 + t);
            CHECK((w - f.c * other * f.r).template cast<double>().norm() >= f.error * (1 - 1e-5) - 100 * eps<S>);
        }
        CHECK(relative_difference(f.product().dense(), (f.c * f.u * f.r).eval()) < 1e4 * eps<S>);
    }
    // A matrix of lower rank than asked for.
    const matrix<S> low = (gaussian<S>(12, 3, 7) * S(4)).array().round().matrix() *
                          (gaussian<S>(3, 15, 8) * S(4)).array().round().matrix();
    const auto g = cur(low, 9);
    REQUIRE(g);
    CHECK(g.columns.size() == 3);
    CHECK(g.rows.size() == 3);
    CHECK(g.relative < 1e3 * eps<S>);
}

TEST_CASE_TEMPLATE("extreme scales, empty, NaN, contracts", S, float, double) {
    const auto w = gaussian<S>(8, 6, 9);
    const auto one = interpolative(w, 3);
    for (const int e : {-100, 100}) {
        const S scale = std::ldexp(S(1), e);
        const auto f = interpolative(matrix<S>(w * scale), 3);
        REQUIRE(f);
        CHECK(f.columns == one.columns);
        CHECK(f.z == one.z);
        CHECK(f.relative == doctest::Approx(one.relative));
        const auto c = cur(matrix<S>(w * scale), 3);
        REQUIRE(c);
        CHECK(c.relative == doctest::Approx(cur(w, 3).relative));
    }
    CHECK(static_cast<bool>(pivoted_qr(matrix<S>(0, 4))));
    CHECK(static_cast<bool>(interpolative(matrix<S>(4, 0), 0)));
    CHECK(static_cast<bool>(cur(matrix<S>(4, 0), 0)));
    auto bad = w;
    bad(1, 1) = std::numeric_limits<S>::quiet_NaN();
    CHECK(pivoted_qr(bad).why.code == errc::non_finite);
    CHECK(interpolative(bad, 2).why.code == errc::non_finite);
    CHECK(cur(bad, 2).why.code == errc::non_finite);
    CHECK_THROWS_AS((void)interpolative(w, 7), contract_violation);
    CHECK_THROWS_AS((void)cur(w, -1), contract_violation);
    CHECK_THROWS_AS((void)pivoted_qr(w, {.max_rank = 7}), contract_violation);
}

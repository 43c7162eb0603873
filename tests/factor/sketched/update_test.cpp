// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/sketched/update.hpp>
#include <lowrank/factor/svd.hpp>

#include <limits>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class S, class W>
void check_svd_of(const W& w, const decomposition<S>& f) {
    REQUIRE(f);
    const matrix<double> wide = w.template cast<double>();
    CHECK(relative_residual(wide, f) < 100 * eps<S>);
    CHECK(orthogonality_defect(f.u) < 100 * eps<S>);
    CHECK(orthogonality_defect(f.v) < 100 * eps<S>);
    const auto g = svd(wide);
    const idx p = std::min(f.s.size(), g.s.size());
    CHECK((f.s.head(p).template cast<double>() - g.s.head(p)).cwiseAbs().maxCoeff() < 20 * eps<S> * g.s(0));
}

}  // namespace

TEST_CASE_TEMPLATE("appended rows and columns, rank-one and low-rank changes", S, float, double) {
    const auto w = with_values<S>(30, 20, geometric(5, 2.0, 0.6), 1);
    const auto f = svd(w).leading(5);
    const matrix<S> rows = gaussian<S>(3, 20, 2);
    const matrix<S> columns = gaussian<S>(30, 4, 3);
    const vector<S> a = gaussian<S>(30, 1, 4);
    const vector<S> b = gaussian<S>(20, 1, 5);

    matrix<S> taller(33, 20);
    taller << w, rows;
    check_svd_of<S>(taller, append_rows(f, rows));
    CHECK(append_rows(f, rows).s.size() == 8);

    matrix<S> wider(30, 24);
    wider << w, columns;
    check_svd_of<S>(wider, append_columns(f, columns));

    check_svd_of<S>(matrix<S>(w + S(2) * a * b.transpose()), rank_one_update(f, a, b, S(2)));
    const low_rank<S> d{.left = gaussian<S>(30, 3, 6), .right = gaussian<S>(3, 20, 7)};
    check_svd_of<S>(matrix<S>(w + d.dense()), add_low_rank(f, d));

    // What was missing of the old matrix is missing of the changed one.
    const auto part = f.leading(3);
    const auto changed = add_low_rank(part, d);
    CHECK(changed.error.frobenius == doctest::Approx(part.error.frobenius));
    CHECK(changed.error.frobenius == doctest::Approx((w + d.dense() - changed.product().dense()).norm()).epsilon(1e-4));
    CHECK(append_columns(part, columns).error.frobenius == part.error.frobenius);
}

TEST_CASE_TEMPLATE("growing a matrix row by row ends at its SVD, and a change can be taken back", S, float, double) {
    const auto w = gaussian<S>(12, 8, 8);
    decomposition<S> f = svd(matrix<S>(w.topRows(1)));
    for (idx i = 1; i < 12; ++i) {
        f = append_rows(f, matrix<S>(w.row(i)));
    }
    CHECK(f.s.size() == 8);
    check_svd_of<S>(w, f);

    const vector<S> a = gaussian<S>(12, 1, 9);
    const vector<S> b = gaussian<S>(8, 1, 10);
    const auto back = rank_one_update(rank_one_update(f, a, b), a, b, S(-1));
    check_svd_of<S>(w, back);
}

TEST_CASE_TEMPLATE("NaN is a status, a wrong shape a broken contract", S, float, double) {
    const auto f = svd(gaussian<S>(4, 3, 11));
    matrix<S> bad = gaussian<S>(1, 3, 12);
    bad(0, 1) = std::numeric_limits<S>::quiet_NaN();
    CHECK(append_rows(f, bad).why.code == errc::non_finite);
    CHECK_THROWS_AS((void)append_rows(f, gaussian<S>(1, 4, 1)), contract_violation);
    CHECK_THROWS_AS((void)append_columns(f, gaussian<S>(3, 1, 1)), contract_violation);
    CHECK_THROWS_AS((void)f.leading(4), contract_violation);
    CHECK_THROWS_AS((void)append_rows(svd(bad), gaussian<S>(1, 3, 1)), contract_violation);
    const auto same = append_rows(f, matrix<S>(0, 3));
    CHECK((same.s - f.s).cwiseAbs().maxCoeff() < 20 * eps<S> * static_cast<double>(f.s(0)));
}

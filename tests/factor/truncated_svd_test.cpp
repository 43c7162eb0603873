// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/truncated_svd.hpp>

#include <limits>
#include <string>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("the truncation is the head of the full decomposition and its error the tail", S, float, double) {
    const row_matrix<S> w = with_values<S>(40, 60, power_law(40, 1.0), 1);
    const auto full = svd(w);
    const matrix<double> wide = w.template cast<double>();
    for (const idx k : {idx{0}, idx{1}, idx{13}, idx{40}}) {
        const auto f = truncated_svd(w, k);
        REQUIRE(f);
        CHECK(f.u == full.u.leftCols(k));
        CHECK(f.s == full.s.head(k));
        CHECK(f.v == full.v.leftCols(k));
        CHECK(f.error.how == error_source::exact);
        const double residual = (wide - f.product().dense().template cast<double>()).norm();
        CHECK(std::abs(f.error.frobenius - residual) < 40 * eps<S> * wide.norm());
        CHECK(f.error.relative == doctest::Approx(f.error.frobenius / wide.norm()).epsilon(1e-5));
    }
    CHECK(std::string(to_string(error_source::exact)) == "exact");
    CHECK(std::string(to_string(error_source::sampled)) == "sampled");
}

TEST_CASE("NaN is a status, a rank out of range a broken contract") {
    matrix<float> w = gaussian<float>(5, 4, 2);
    CHECK_THROWS_WITH_AS((void)truncated_svd(w, 5), "truncated_svd: rank must be in [0, 4], got 5", contract_violation);
    CHECK_THROWS_AS((void)truncated_svd(w, -1), contract_violation);
    w(0, 0) = std::numeric_limits<float>::quiet_NaN();
    const auto f = truncated_svd(w, 2);
    CHECK(f.why.code == errc::non_finite);
    CHECK(f.u.size() == 0);
    const auto none = truncated_svd(matrix<float>(0, 3), 0);
    REQUIRE(none);
    CHECK(none.product().dense().cols() == 3);
    CHECK(none.error.frobenius == 0.0);
}

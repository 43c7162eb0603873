// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<low_rank<float>>);
static_assert(linear_operator<low_rank<double>>);

TEST_CASE_TEMPLATE("low_rank applies like its dense product", S, float, double) {
    const low_rank<S> a{.left = gaussian<S>(31, 5, 1), .right = gaussian<S>(5, 17, 2)};
    const matrix<double> dense = a.left.template cast<double>() * a.right.template cast<double>();
    CHECK(relative_difference(a.dense(), dense) < 20 * eps<S>);

    const auto x = gaussian<S>(17, 4, 3);
    const auto z = gaussian<S>(31, 4, 4);
    CHECK(relative_difference(apply(a, x), (dense * x.template cast<double>()).eval()) < 20 * eps<S>);
    CHECK(relative_difference(apply_transposed(a, z), (dense.transpose() * z.template cast<double>()).eval()) <
          20 * eps<S>);

    // alpha scales, and the product is added to what is there.
    workspace ws;
    matrix<S> y = gaussian<S>(31, 4, 5);
    const matrix<double> want = y.template cast<double>() - 0.5 * dense * x.template cast<double>();
    a.add_product(S(-0.5), x, y, ws);
    CHECK(relative_difference(y, want) < 20 * eps<S>);
}

TEST_CASE_TEMPLATE("the norm of a low_rank is that of its product", S, float, double) {
    for (const auto& [m, k, n] : {std::array<idx, 3>{40, 6, 30}, {4, 6, 30}, {40, 6, 3}, {1, 1, 1}, {3, 9, 3}}) {
        const low_rank<S> a{.left = gaussian<S>(m, k, 1), .right = gaussian<S>(k, n, 2)};
        const matrix<double> dense = a.left.template cast<double>() * a.right.template cast<double>();
        CHECK(frobenius_norm(a) == doctest::Approx(dense.norm()).epsilon(1e-13));
    }
}

TEST_CASE("the norm keeps its digits where the two factors nearly cancel") {
    // [P, P + E] [Q; -Q] = -E Q with E a million times smaller than P: a Gram matrix would leave nothing of it.
    const matrix<double> p = gaussian<double>(50, 4, 1);
    const matrix<double> e = gaussian<double>(50, 4, 2) * 1e-9;
    const matrix<double> q = gaussian<double>(4, 60, 3);
    low_rank<double> a{.left = matrix<double>(50, 8), .right = matrix<double>(8, 60)};
    a.left << p, p + e;
    a.right << q, -q;
    CHECK(frobenius_norm(a) == doctest::Approx((e * q).norm()).epsilon(1e-6));
}

TEST_CASE_TEMPLATE("the norm neither overflows nor underflows", S, float, double) {
    const low_rank<S> a{.left = gaussian<S>(9, 3, 1), .right = gaussian<S>(3, 8, 2)};
    const double one = frobenius_norm(a);
    const S big = std::is_same_v<S, float> ? S(1e30) : S(1e200);
    const low_rank<S> b{.left = a.left * big, .right = a.right * big};
    if constexpr (std::is_same_v<S, float>) {
        CHECK(frobenius_norm(b) == doctest::Approx(one * 1e60).epsilon(1e-5));
    }
    const low_rank<S> c{.left = a.left * big, .right = a.right / big};
    CHECK(frobenius_norm(c) == doctest::Approx(one).epsilon(1e-5));
    const low_rank<S> d{.left = a.left / big, .right = a.right};
    CHECK(frobenius_norm(d) * static_cast<double>(big) == doctest::Approx(one).epsilon(1e-5));
}

TEST_CASE_TEMPLATE("rank zero and empty shapes are matrices of zeros", S, float, double) {
    const low_rank<S> none{.left = matrix<S>(3, 0), .right = matrix<S>(0, 2)};
    CHECK(none.rank() == 0);
    CHECK(none.dense() == matrix<S>::Zero(3, 2));
    CHECK(frobenius_norm(none) == 0.0);
    CHECK(apply(none, gaussian<S>(2, 5, 1)) == matrix<S>::Zero(3, 5));
    CHECK(frobenius_norm(low_rank<S>{}) == 0.0);
    const low_rank<S> zero{.left = matrix<S>::Zero(3, 2), .right = gaussian<S>(2, 4, 1)};
    CHECK(frobenius_norm(zero) == 0.0);
}

TEST_CASE("a low_rank with factors that do not fit, or a wrong shape, is a broken contract") {
    const low_rank<float> bad{.left = gaussian<float>(3, 2, 1), .right = gaussian<float>(4, 3, 2)};
    CHECK_THROWS_WITH_AS((void)bad.dense(), "low_rank::dense: left has 2 columns and right 4 rows; they must agree",
                         contract_violation);
    CHECK_THROWS_AS((void)frobenius_norm(bad), contract_violation);
    const low_rank<float> good{.left = gaussian<float>(3, 2, 1), .right = gaussian<float>(2, 4, 2)};
    CHECK_THROWS_AS((void)apply(good, gaussian<float>(3, 1, 1)), contract_violation);
    CHECK_THROWS_AS((void)apply_transposed(good, gaussian<float>(4, 1, 1)), contract_violation);
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/algebra/cayley.hpp>

#include <Eigen/LU>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("skew matrices: entries go row by row, the gradient comes back the same way") {
    vector<double> entries(6);
    entries << 1, 2, 3, 4, 5, 6;
    const auto q = skew_from_upper(entries, 4);
    matrix<double> want(4, 4);
    want << 0, 1, 2, 3, -1, 0, 4, 5, -2, -4, 0, 6, -3, -5, -6, 0;
    CHECK(max_abs_diff(q, want) == 0);
    const auto dq = random_matrix<double>(4, 4, 1);
    const auto loss = [&] { return skew_from_upper(entries, 4).cwiseProduct(dq).sum(); };
    CHECK(relative_diff(skew_backward(dq), numeric_gradient(entries, loss)) < 1e-9);
    CHECK_THROWS_AS((void)skew_from_upper(entries, 3), contract_violation);
    CHECK(skew_from_upper(vector<double>(0), 1).size() == 1);
}

TEST_CASE("the transform is orthogonal however large Q is, the identity for Q = 0; its gradient is right") {
    for (const double size : {1e-8, 0.3, 1e4}) {
        const vector<double> entries = random_matrix<double>(28, 1, 2, size);
        const auto q = skew_from_upper(entries, 8);
        const auto c = cayley(q);
        CHECK(max_abs_diff(c.transpose() * c, matrix<double>::Identity(8, 8)) < 1e-11);
        CHECK(std::abs(c.determinant() - 1) < 1e-11);
    }
    const matrix<double> id = matrix<double>::Identity(5, 5);
    CHECK(same_bits(cayley(matrix<double>::Zero(5, 5)), id));
    auto q = random_matrix<double>(5, 5, 3, 0.3);  // the gradient needs no skew symmetry
    const auto dc = random_matrix<double>(5, 5, 4);
    const auto loss = [&] { return cayley(q).cwiseProduct(dc).sum(); };
    CHECK(relative_diff(cayley_backward(q, cayley(q), dc), numeric_gradient(q, loss)) < 1e-7);
}

TEST_CASE("the series has the coefficients 1, 2, ..., 2, 1 and comes near the transform") {
    auto q = random_matrix<double>(4, 4, 5, 0.2);
    const matrix<double> id = matrix<double>::Identity(4, 4);
    const matrix<double> q2 = q * q;
    CHECK(max_abs_diff(cayley_neumann(q, 1), id) == 0);
    CHECK(max_abs_diff(cayley_neumann(q, 2), id + 2 * q) < 1e-15);
    CHECK(max_abs_diff(cayley_neumann(q, 3), id + 2 * q + 2 * q2 + q2 * q) < 1e-15);
    CHECK(max_abs_diff(cayley_neumann(q, 3), cayley_neumann(q, 4)) == 0);
    CHECK(max_abs_diff(cayley_neumann(q, 5), id + 2 * q + 2 * q2 + 2 * q2 * q + q2 * q2) < 1e-15);
    const auto dr = random_matrix<double>(4, 4, 6);
    for (const lowrank::index terms : {1, 2, 3, 5, 7}) {
        const auto loss = [&] { return cayley_neumann(q, terms).cwiseProduct(dr).sum(); };
        const matrix<double> want = numeric_gradient(q, loss);
        CHECK(max_abs_diff(cayley_neumann_backward(q, terms, dr), want) < 1e-9);
    }
    const vector<double> entries = random_matrix<double>(6, 1, 7, 0.01);
    const auto small = skew_from_upper(entries, 4);
    CHECK(max_abs_diff(cayley_neumann(small, 9), cayley(small)) < 1e-12);
    CHECK_THROWS_AS((void)cayley_neumann(q, 0), contract_violation);
}

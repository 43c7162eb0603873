// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include <Eigen/Core>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

#include "support/matrices.hpp"

using namespace lowrank;
using idx = lowrank::index;

namespace {

// A matrix of small integers: every product of them is exact, in whatever order it is summed.
template <class M>
M integers(idx rows, idx cols, int seed) {
    M out(rows, cols);
    for (idx j = 0; j < cols; ++j) {
        for (idx i = 0; i < rows; ++i) {
            out(i, j) = static_cast<typename M::Scalar>((7 * i + 13 * j + 5 * seed + i * j) % 9 - 4);
        }
    }
    return out;
}

}  // namespace

TEST_CASE_TEMPLATE("add_product is C + alpha A B for every shape, order and transpose", S, float, double) {
    for (const idx m : {0, 1, 2, 3, 5, 8, 17, 48, 49, 96, 130}) {
        for (const idx n : {0, 1, 2, 3, 4, 7, 8, 9, 33, 65}) {
            for (const idx k : {0, 1, 2, 9, 64, 200, 401}) {
                const auto a = integers<matrix<S>>(m, k, 1), b = integers<matrix<S>>(k, n, 2);
                const auto c = integers<matrix<S>>(m, n, 3);
                const row_matrix<S> ar = a, br = b, cr = c;
                matrix<S> expected = c;
                for (idx j = 0; j < n; ++j) {
                    for (idx p = 0; p < k; ++p) {
                        expected.col(j) += S(0.5) * b(p, j) * a.col(p);
                    }
                }
                matrix<S> got = c;
                add_product(S(0.5), a, b, got);
                REQUIRE(got == expected);
                got = c;
                add_product(S(0.5), ar, br, got);
                REQUIRE(got == expected);
                row_matrix<S> by_rows = cr;
                add_product(S(0.5), ar, b, by_rows);
                REQUIRE(by_rows == expected);
                matrix<S> turned = c.transpose();
                add_product(S(0.5), transposed(b), transposed(a), turned);
                REQUIRE(turned.transpose() == expected);
            }
        }
    }
}

TEST_CASE("blocks, strides and other scalars are read as they lie") {
    const auto a = integers<matrix<double>>(20, 30, 1);
    matrix<double> c = integers<matrix<double>>(40, 40, 2), expected = c;
    expected.block(3, 5, 7, 9) -= a.block(2, 4, 7, 11) * a.block(1, 3, 9, 11).transpose();
    add_product(-1.0, a.block(2, 4, 7, 11), transposed(a.block(1, 3, 9, 11)), c.block(3, 5, 7, 9));
    CHECK(c == expected);

    // Entries of float are multiplied in double: no product of two floats is rounded.
    matrix<float> x(3, 2);
    x << 1e30F, 1.0F, 16777217.0F, 3.0F, -1e30F, 0.5F;
    const matrix<double> wide = x.cast<double>();
    CHECK(product_in<double>(transposed(x), x) == matrix<double>(wide.transpose() * wide));
    CHECK(gram(x) == matrix<double>(wide.transpose() * wide));
    CHECK(product(transposed(a), a) == gram(a));

    workspace ws;
    matrix<double> y = matrix<double>::Zero(20, 20);
    detail::gemm<double, double, double>(1.0, a, transposed(a), dense_view<double>(y), false, &ws);
    CHECK(y == product(a, transposed(a)));
}

TEST_CASE_TEMPLATE("triangles are solved and positive definite matrices factored", S, float, double) {
    const S tolerance = S(100) * std::numeric_limits<S>::epsilon();
    for (const idx n : {1, 2, 5, 31, 32, 33, 100}) {
        matrix<S> a = integers<matrix<S>>(n + 5, n, 3);
        a.diagonal().array() += S(20);
        const matrix<S> g = a.transpose() * a;
        matrix<S> l = g;
        REQUIRE(cholesky(l));
        const matrix<S> low = l.template triangularView<Eigen::Lower>();
        CHECK((low * low.transpose() - g).norm() < tolerance * g.norm());
        const auto y = integers<matrix<S>>(40, n, 4);
        matrix<S> z = y;
        solve_right_lower_transposed(l, z);  // the upper triangle of l holds g still, and is not read
        CHECK((z * low.transpose() - y).norm() < S(10) * tolerance * y.norm());
        const matrix<S> up = low.transpose();
        row_matrix<S> rows = y;
        solve_right_upper(up, rows);
        CHECK((rows * up - y).norm() < S(10) * tolerance * y.norm());
    }
    matrix<S> indefinite(2, 2);
    indefinite << S(1), S(2), S(2), S(1);
    CHECK_FALSE(cholesky(indefinite));
}

TEST_CASE_TEMPLATE("general systems are solved, with rows exchanged where pivots need it", S, float, double) {
    const S tolerance = S(100) * std::numeric_limits<S>::epsilon();
    for (const idx n : {1, 2, 5, 31, 32, 33, 100}) {
        matrix<S> a(n, n), b(n, 7);
        fill_normal(a, S(1), philox(1, 2));
        fill_normal(b, S(1), philox(1, 3));
        if (n > 1) {
            a(0, 0) = S(0);  // the first pivot is elsewhere
        }
        matrix<S> x = b, lu = a;
        REQUIRE(solve(lu, x));
        CHECK((a * x - b).norm() < tolerance * a.norm() * x.norm());
        row_matrix<S> rows = b, of_rows = a;
        REQUIRE(solve(of_rows, rows));
        CHECK((a * rows - b).norm() < tolerance * a.norm() * x.norm());
        matrix<S> id = matrix<S>::Identity(n, n), y = b;
        REQUIRE(solve(id, y));
        CHECK(y == b);
    }
    matrix<S> singular(2, 2), y(2, 1);
    singular << S(1), S(2), S(2), S(4);
    y << S(1), S(1);
    CHECK_FALSE(solve(singular, y));
    matrix<S> nan(1, 1), z(1, 1);
    nan << std::numeric_limits<S>::quiet_NaN();
    z << S(1);
    CHECK_FALSE(solve(nan, z));
}

TEST_CASE_TEMPLATE("the kernels on columns are their formulas", S, float, double) {
    for (const idx n : {1, 3, 4, 7, 16, 33, 100}) {
        const auto a = integers<matrix<S>>(n, n, 1);
        const matrix<S> symmetric = a + a.transpose();
        const vector<S> x = integers<matrix<S>>(n, 1, 2), z = integers<matrix<S>>(n, 1, 3);
        vector<S> y = z;
        matrix<S> lower = symmetric;
        lower.template triangularView<Eigen::StrictlyUpper>().setConstant(std::numeric_limits<S>::quiet_NaN());
        detail::symv_lower<S>(S(2), dense_view<const S>(lower), x.data(), y.data());
        CHECK(y == vector<S>(z + S(2) * symmetric * x));
        CHECK(detail::dot_of(x.data(), z.data(), n) == x.dot(z));
        y = z;
        detail::axpy(S(3), x.data(), y.data(), n);
        CHECK(y == vector<S>(z + S(3) * x));
        vector<S> p = x, q = z;
        detail::rotate(p.data(), q.data(), n, S(2), S(3));
        CHECK(p == vector<S>(S(2) * x - S(3) * z));
        CHECK(q == vector<S>(S(3) * x + S(2) * z));
    }
}

TEST_CASE("shapes that do not fit are refused") {
    const matrix<float> a(3, 4), b(3, 4);
    matrix<float> c(3, 4);
    CHECK_THROWS_AS(add_product(1.0F, a, b, c), contract_violation);
    CHECK_THROWS_AS((void)product(a, b), contract_violation);
    CHECK_THROWS_AS((void)solve(c, c), contract_violation);
}

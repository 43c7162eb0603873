// SPDX-License-Identifier: MIT
#include <lowrank/core/skinny_product.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

#include "support/allocations.hpp"
#include "support/executors.hpp"
#include "support/skinny.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// All four products of one weight against the double product.
template <class T>
void check_products(const shape& s) {
    using S = compute_t<T>;
    CAPTURE(s.rows);
    CAPTURE(s.cols);
    CAPTURE(s.k);
    const row_matrix<T> r = normal<row_matrix<T>>(s.rows, s.cols, 1);
    const matrix<T> c = r;
    const matrix<double> dense = r.template cast<compute_t<T>>().template cast<double>();
    const matrix<S> x = normal<matrix<S>>(s.cols, s.k, 2), z = normal<matrix<S>>(s.rows, s.k, 3);
    const matrix<S> y0 = normal<matrix<S>>(s.rows, s.k, 4), w0 = normal<matrix<S>>(s.cols, s.k, 5);
    const matrix<double> y_want = y0.template cast<double>() - 0.75 * (dense * x.template cast<double>()).eval();
    const matrix<double> w_want =
        w0.template cast<double>() - 0.75 * (dense.transpose() * z.template cast<double>()).eval();
    workspace ws;
    matrix<S> y = y0, w = w0;
    add_product<T, 1>(S(-0.75), r, x, y, ws);
    CHECK(rounding<S>(y, y_want, s.cols) < 1);
    add_transposed_product<T, 1>(S(-0.75), r, z, w, ws);
    CHECK(rounding<S>(w, w_want, s.rows) < 1);
    y = y0;
    w = w0;
    add_product<T, 0>(S(-0.75), c, x, y, ws);
    CHECK(rounding<S>(y, y_want, s.cols) < 1);
    add_transposed_product<T, 0>(S(-0.75), c, z, w, ws);
    CHECK(rounding<S>(w, w_want, s.rows) < 1);
}

}  // namespace

TEST_CASE_TEMPLATE("products agree with double, small shapes", T, float, double, half, bfloat16) {
    for (const auto& s : std::vector<shape>{{1, 1, 1},
                                            {1, 1, 2},
                                            {3, 2, 4},
                                            {1, 50, 3},
                                            {50, 1, 3},
                                            {7, 9, 11},
                                            {64, 64, 1},
                                            {64, 64, 16},
                                            {172, 64, 33},
                                            {33, 172, 300}}) {
        check_products<T>(s);
    }
}

TEST_CASE_TEMPLATE("products agree with double, shapes that stream", T, float, double, half, bfloat16) {
    for (const auto& s : std::vector<shape>{{530, 1031, 1}, {530, 1031, 5}, {1031, 530, 16}, {800, 700, 33}}) {
        check_products<T>(s);
    }
    check_products<T>({70, 9001, 17});
    check_products<T>({9001, 70, 17});
}

TEST_CASE_TEMPLATE("more columns than one pass takes", S, float, double) { check_products<S>({520, 1030, 259}); }

TEST_CASE_TEMPLATE("blocks of larger matrices are read and written in place", T, float, double, bfloat16) {
    using S = compute_t<T>;
    const lowrank::index rows = 540, cols = 1040, k = 9;
    const row_matrix<T> big = normal<row_matrix<T>>(rows + 7, cols + 5, 1);
    const matrix<S> x_big = normal<matrix<S>>(cols + 3, k + 2, 2);
    const auto r = big.block(3, 2, rows, cols);
    const auto x = x_big.block(1, 1, cols, k);
    matrix<S> y_big = matrix<S>::Constant(rows + 4, k + 2, S(3));
    workspace ws;
    add_product<T, 1>(S(1), r, x, y_big.block(2, 1, rows, k), ws);
    matrix<S> y = matrix<S>::Constant(rows, k, S(3));
    add_product<T, 1>(S(1), row_matrix<T>(r), matrix<S>(x), y, ws);
    CHECK(y_big.block(2, 1, rows, k) == y);
    CHECK((y_big.topRows(2).array() == S(3)).all());
    CHECK((y_big.bottomRows(2).array() == S(3)).all());
    CHECK((y_big.col(0).array() == S(3)).all());
    CHECK((y_big.col(k + 1).array() == S(3)).all());
}

TEST_CASE_TEMPLATE("the same bits whatever the executor", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    for (const auto& s :
         std::vector<shape>{{800, 700, 1}, {800, 700, 20}, {1500, 400, 7}, {400, 1500, 64}, {64, 64, 16}}) {
        const row_matrix<T> r = normal<row_matrix<T>>(s.rows, s.cols, 1);
        const matrix<S> x = normal<matrix<S>>(s.cols, s.k, 2), z = normal<matrix<S>>(s.rows, s.k, 3);
        std::vector<matrix<S>> ys, ws_;
        for (const auto& run : lowrank_tests::executors()) {
            workspace ws(run);
            matrix<S> y = matrix<S>::Zero(s.rows, s.k), w = matrix<S>::Zero(s.cols, s.k);
            add_product<T, 1>(S(1), r, x, y, ws);
            add_transposed_product<T, 1>(S(1), r, z, w, ws);
            ys.push_back(y);
            ws_.push_back(w);
        }
        for (std::size_t i = 1; i < ys.size(); ++i) {
            CHECK(ys[i] == ys[0]);
            CHECK(ws_[i] == ws_[0]);
        }
    }
}

TEST_CASE_TEMPLATE("a column has the same bits in any company", S, float, double) {
    // Within the streaming kernels the order of a sum does not depend on which columns share the pass.
    const row_matrix<S> r = normal<row_matrix<S>>(800, 700, 1);
    const matrix<S> x = normal<matrix<S>>(700, 40, 2), z = normal<matrix<S>>(800, 40, 3);
    workspace ws;
    matrix<S> w = matrix<S>::Zero(700, 40), part = matrix<S>::Zero(700, 11);
    add_transposed_product<S, 1>(S(1), r, z, w, ws);
    add_transposed_product<S, 1>(S(1), r, z.middleCols(5, 11), part, ws);
    CHECK(part == w.middleCols(5, 11));
}

TEST_CASE_TEMPLATE("infinity and NaN stay in their rows and columns", S, float, double) {
    const S inf = std::numeric_limits<S>::infinity();
    row_matrix<S> r = normal<row_matrix<S>>(750, 755, 1);
    matrix<S> x = normal<matrix<S>>(755, 21, 2), z = normal<matrix<S>>(750, 21, 3);
    r(749, 754) = inf;
    x(3, 20) = std::numeric_limits<S>::quiet_NaN();
    z(5, 20) = inf;
    matrix<S> y = matrix<S>::Zero(750, 21), w = matrix<S>::Zero(755, 21);
    workspace ws;
    add_product<S, 1>(S(1), r, x, y, ws);
    add_transposed_product<S, 1>(S(1), r, z, w, ws);
    CHECK(all_finite(y.topLeftCorner(749, 20)));
    CHECK_FALSE(all_finite(y.row(749)));
    CHECK_FALSE(is_finite(y(0, 20)));
    CHECK(all_finite(w.topLeftCorner(754, 20)));
    CHECK_FALSE(all_finite(w.row(754)));
    CHECK_FALSE(is_finite(w(0, 20)));
}

TEST_CASE_TEMPLATE("nothing from the heap once the workspace is warm", T, float, double, half, bfloat16) {
    if (!lowrank_tests::can_count_allocations()) {
        return;
    }
    using S = compute_t<T>;
    for (const auto& s : std::vector<shape>{
             {8, 8, 3}, {64, 64, 512}, {300, 300, 512}, {300, 300, 1}, {800, 700, 1}, {800, 700, 64}, {9000, 70, 9}}) {
        const row_matrix<T> r = normal<row_matrix<T>>(s.rows, s.cols, 1);
        const matrix<T> c = r;
        const matrix<S> x = normal<matrix<S>>(s.cols, s.k, 2), z = normal<matrix<S>>(s.rows, s.k, 3);
        matrix<S> y = matrix<S>::Zero(s.rows, s.k), w = matrix<S>::Zero(s.cols, s.k);
        workspace ws;
        const auto pass = [&] {
            add_product<T, 1>(S(1), r, x, y, ws);
            add_transposed_product<T, 1>(S(1), r, z, w, ws);
            add_product<T, 0>(S(1), c, x, y, ws);
            add_transposed_product<T, 0>(S(1), c, z, w, ws);
        };
        pass();
        pass();
        const long warm = lowrank_tests::allocations();
        pass();
        CHECK(lowrank_tests::allocations() == warm);
    }
}

TEST_CASE_TEMPLATE("empty products leave Y as it is", S, float, double) {
    workspace ws;
    matrix<S> y = matrix<S>::Constant(4, 3, S(1));
    add_product<S, 1>(S(1), row_matrix<S>(4, 0), matrix<S>(0, 3), y, ws);
    CHECK((y.array() == S(1)).all());
    add_transposed_product<S, 1>(S(1), row_matrix<S>(0, 4), matrix<S>(0, 3), y, ws);
    CHECK((y.array() == S(1)).all());
    matrix<S> none(4, 0);
    add_product<S, 1>(S(1), row_matrix<S>(4, 5), matrix<S>(5, 0), none, ws);
    CHECK_THROWS_WITH_AS((add_product<S, 1>(S(1), row_matrix<S>(4, 5), matrix<S>(4, 3), y, ws)),
                         "add_product: x must be 5 x 3, got 4 x 3", contract_violation);
}

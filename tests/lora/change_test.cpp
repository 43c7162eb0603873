// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/change.hpp>

#include <doctest/doctest.h>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

matrix<double> rows_of(const any_row_transform& f, const matrix<double>& w) {
    workspace ws;
    matrix<double> rows = w.transpose();
    f.forward(0, rows, ws);
    return rows.transpose();
}

}  // namespace

TEST_CASE("a magnitude at a strength is W + t (diag(m / n) (W + D) - W), also where a scale vanishes") {
    const matrix<double> w = random_matrix<double>(4, 3, 1);
    const low_rank<double> d{random_matrix<double>(4, 2, 2), random_matrix<double>(2, 3, 3)};
    const matrix<double> sum = w + d.dense();
    for (const bool of_columns : {false, true}) {
        const vector<double> n =
            of_columns ? vector<double>(sum.colwise().norm().transpose()) : vector<double>(sum.rowwise().norm());
        magnitude_change<double> c{.delta = d, .magnitude = 2 * n, .of_columns = of_columns};
        c.magnitude(0) = -n(0);  // at strength 1/2 the scale of W is 0
        const vector<double> k = c.magnitude.cwiseQuotient(n);
        const matrix<double> whole =
            of_columns ? matrix<double>(sum * k.asDiagonal()) : matrix<double>(k.asDiagonal() * sum);
        for (const double t : {1.0, 0.5, -2.0}) {
            CAPTURE(t);
            const auto used = std::get<magnitude_change<double>>(at_strength<double>(c, t));
            const scaled_change<double> s = resolved(used, n);
            const matrix<double> got = rows_of(detail::scaled_rows<double>{s}, w);
            CHECK(relative_diff(got, matrix<double>(w + t * (whole - w))) < 1e-12);
        }
    }
}

TEST_CASE("strengths multiply, transposing twice changes nothing, sums add up") {
    const matrix<double> w = random_matrix<double>(4, 3, 1);
    const low_rank<double> d{random_matrix<double>(4, 2, 2), random_matrix<double>(2, 3, 3)};
    const low_rank<double> e{random_matrix<double>(4, 1, 4), random_matrix<double>(1, 3, 5)};
    const weight_change<double> added = added_rows_change{added_rows(product_rows<double>{e.left, e.right})};
    CHECK(is_sum<double>(d));
    CHECK(is_sum<double>(added));
    CHECK_FALSE(is_sum<double>(scaled_change<double>{d}));
    const auto half = at_strength(at_strength(added, 2.0), 0.25);
    CHECK(relative_diff(rows_of(std::get<added_rows_change>(half).rows, w), matrix<double>(w + 0.5 * e.dense())) <
          1e-14);
    const auto both = std::get<added_rows_change>(sum<double>(d, added));
    CHECK(relative_diff(rows_of(both.rows, w), matrix<double>(w + d.dense() + e.dense())) < 1e-14);
    const auto factors = std::get<low_rank<double>>(sum<double>(d, e));
    CHECK(relative_diff(factors.dense(), matrix<double>(d.dense() + e.dense())) < 1e-14);
    const auto again = std::get<low_rank<double>>(transposed(transposed<double>(d)));
    CHECK(again.left == d.left);
    CHECK(again.right == d.right);
    const auto flipped = std::get<added_rows_change>(sum<double>(transposed(added), transposed<double>(d)));
    CHECK(flipped.acts_on_transpose);
    CHECK(relative_diff(rows_of(flipped.rows, w), matrix<double>(w + d.dense() + e.dense())) < 1e-14);
    CHECK_THROWS_AS((void)sum<double>(d, scaled_change<double>{d}), contract_violation);
}

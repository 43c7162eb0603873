// SPDX-License-Identifier: MIT
#include <lowrank/core/operator_columns.hpp>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>

using namespace lowrank;

TEST_CASE("the columns of an operator are those of its matrix, in panels from left to right") {
    matrix<double> w(7, 150);
    fill_normal(w, 1.0, philox(1));
    const dense_operator<double, 0> m{const_column_view<double>(w)};
    CHECK((dense_of(m).array() == w.array()).all());
    lowrank::index next = 0;
    for_column_panels<double>(m, [&](lowrank::index first, const const_column_view<double>& columns) {
        CHECK(first == next);
        CHECK(columns.cols() <= 64);
        next += columns.cols();
    });
    CHECK(next == 150);
    const matrix<double> none(3, 0);
    CHECK(dense_of(dense_operator<double, 0>{const_column_view<double>(none)}).size() == 0);
}

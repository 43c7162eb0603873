// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/detail/stored_change.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>

using namespace lowrank;
using detail::stored_change;
using detail::stored_change_of;

namespace {

matrix<float> drawn_factor(lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
    matrix<float> m(rows, cols);
    fill_normal(m, 0.5F, philox(4, stream));
    return m;
}

/// What a change makes of a stored weight of zeros, scales aside.
matrix<double> sum_in_storage(const stored_change& c, lowrank::index rows, lowrank::index cols) {
    if (!c.rows) {
        return (c.left * c.right).cast<double>();
    }
    workspace ws;
    matrix<double> of_rows = matrix<double>::Zero(c.acts_on_transpose ? rows : cols, c.acts_on_transpose ? cols : rows);
    c.rows->forward(0, of_rows, ws);
    return c.acts_on_transpose ? of_rows : matrix<double>(of_rows.transpose());
}

}  // namespace

TEST_CASE("a change is stored as the checkpoint stores its weight") {
    const low_rank<float> delta{.left = drawn_factor(6, 2, 0), .right = drawn_factor(2, 4, 1)};
    const matrix<double> dense = delta.dense().cast<double>();
    const auto plain = stored_change_of({.weight = delta}, {6, 4}, false, 0.5);
    CHECK((sum_in_storage(plain, 6, 4) - 0.5 * dense).norm() < 1e-6);
    const auto transposed = stored_change_of({.weight = delta}, {4, 6}, true, 0.5);
    CHECK((sum_in_storage(transposed, 4, 6) - 0.5 * dense.transpose()).norm() < 1e-6);
    CHECK_FALSE(plain.scales());

    const peft_change outputs{.weight = scaled_change<float>{.row_scale = vector<float>::Constant(6, 3)}};
    const auto by_row = stored_change_of(outputs, {6, 4}, false, 0.5);
    CHECK(by_row.scales());
    CHECK(by_row.row_scale == vector<float>::Constant(6, 2));
    CHECK(by_row.left.cols() == 0);
    const peft_change inputs{.weight = scaled_change<float>{.column_scale = vector<float>::Constant(2, 3)}};
    const auto by_column = stored_change_of(inputs, {6, 4}, false, 0.5);
    CHECK(by_column.scales());
    CHECK(by_column.column_scale == vector<float>::Constant(4, 2));  // two taps of each input
}

TEST_CASE("sums of products and of rows are one sum, and its checksum knows the parts") {
    const low_rank<float> a{.left = drawn_factor(6, 2, 2), .right = drawn_factor(2, 4, 3)};
    const loha_adapter<float> b{.w1_a = drawn_factor(6, 2, 4),
                                .w1_b = drawn_factor(2, 4, 5),
                                .w2_a = drawn_factor(6, 2, 6),
                                .w2_b = drawn_factor(2, 4, 7)};
    for (const bool flip : {false, true}) {
        const module_shape has = flip ? module_shape{4, 6} : module_shape{6, 4};
        auto product = stored_change_of({.weight = a}, has, flip, 1);
        auto rows = stored_change_of(change_without_factors(b), has, flip, -2);
        CHECK_FALSE(rows.scales());
        const matrix<double> expected =
            sum_in_storage(product, has.out, has.in) + sum_in_storage(rows, has.out, has.in);
        rows.rows_checksum = 1;
        stored_change first = product;
        first.add(rows);
        stored_change second = rows;
        second.add(product);
        for (const stored_change* sum : {&first, &second}) {
            REQUIRE(sum->rows);
            CHECK(sum->is_additive);
            CHECK((sum_in_storage(*sum, has.out, has.in) - expected).norm() < 1e-6);
        }
        rows.rows_checksum = 2;
        stored_change other = product;
        other.add(rows);
        CHECK(other.rows_checksum != first.rows_checksum);
        product.add(stored_change(product));
        CHECK(product.left.cols() == 4);
    }
}

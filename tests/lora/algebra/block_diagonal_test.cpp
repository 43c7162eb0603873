// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/algebra/block_diagonal.hpp>

#include "lora/support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("products with a block-diagonal matrix are those with the whole one", S, float, double) {
    for (const lowrank::index blocks : {1, 2, 3}) {
        const auto stored = random_matrix<S>(6, 4, 1);
        const matrix<S> whole = block_diagonal(stored, blocks);
        CHECK(whole.cols() == 4 * blocks);
        for (lowrank::index i = 0; i < 6; ++i) {
            const lowrank::index first = i / (6 / blocks) * 4;
            CHECK(whole.row(i).segment(first, 4) == stored.row(i));
            CHECK(whole.row(i).cwiseAbs().sum() == doctest::Approx(stored.row(i).cwiseAbs().sum()));
        }
        const auto x = random_matrix<S>(4 * blocks, 5, 2);
        const auto u = random_matrix<S>(6, 5, 3);
        workspace ws;
        matrix<S> y = u;
        add_block_product(S(0.5), stored, blocks, x, y, ws);
        CHECK(max_abs_diff(y, matrix<S>(u + S(0.5) * whole * x)) < 100 * epsilon<S>);
        matrix<S> z = x;
        add_block_transposed_product(S(0.5), stored, blocks, u, z, ws);
        CHECK(max_abs_diff(z, matrix<S>(x + S(0.5) * whole.transpose() * u)) < 100 * epsilon<S>);
        matrix<S> g = stored;
        add_block_outer_product(S(0.5), u, x, blocks, g, ws);
        const matrix<S> outer = whole + S(0.5) * u * x.transpose();
        for (lowrank::index i = 0; i < 6; ++i) {
            const lowrank::index first = i / (6 / blocks) * 4;
            CHECK(max_abs_diff(g.row(i), outer.row(i).segment(first, 4)) < 100 * epsilon<S>);
        }
        CHECK_THROWS_AS(add_block_product(S(1), stored, blocks, u, y, ws), contract_violation);
    }
    CHECK_THROWS_AS((void)block_diagonal(random_matrix<S>(6, 4, 1), 4), contract_violation);
}

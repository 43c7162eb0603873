// SPDX-License-Identifier: MIT
#include <lowrank/lora/lokr.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_map<kronecker_map<float>>);

TEST_CASE("the map, the factors and the Kronecker product agree; gradients are right") {
    for (const bool whole1 : {true, false}) {
        for (const bool whole2 : {true, false}) {
            lokr_adapter<double> a{.alpha = 6, .r = 2};
            a.w1 = whole1 ? lokr_factor<double>{.left = random_matrix<double>(2, 3, 1)}
                          : lokr_factor<double>{.left = random_matrix<double>(2, 2, 1),
                                                .right = random_matrix<double>(2, 3, 2)};
            a.w2 = whole2 ? lokr_factor<double>{.left = random_matrix<double>(4, 5, 3)}
                          : lokr_factor<double>{.left = random_matrix<double>(4, 2, 3),
                                                .right = random_matrix<double>(2, 5, 4)};
            matrix<double> want(8, 15);
            for (lowrank::index i = 0; i < 8; ++i) {
                for (lowrank::index j = 0; j < 15; ++j) {
                    want(i, j) = 3 * a.w1.dense()(i / 4, j / 5) * a.w2.dense()(i % 4, j % 5);
                }
            }
            CHECK(max_abs_diff(a.delta().dense(), want) < 1e-13);
            const auto x = random_matrix<double>(15, 3, 5);
            const auto y = random_matrix<double>(8, 3, 6);
            CHECK(max_abs_diff(apply(a.map(), x), want * x) < 1e-13);
            CHECK(max_abs_diff(apply_transposed(a.map(), y), want.transpose() * y) < 1e-13);

            const auto g = probe_gradient(a);
            const auto loss = [&] { return probe_loss(a); };
            CHECK(relative_diff(g.w1.left, numeric_gradient(a.w1.left, loss)) < 1e-7);
            CHECK(relative_diff(g.w2.left, numeric_gradient(a.w2.left, loss)) < 1e-7);
            CHECK(relative_diff(g.w1.right, numeric_gradient(a.w1.right, loss)) < 1e-7);
            CHECK(relative_diff(g.w2.right, numeric_gradient(a.w2.right, loss)) < 1e-7);
        }
    }
    const lokr_adapter<double> a{.w1 = {.left = matrix<double>(2, 3)}, .w2 = {.left = matrix<double>(4, 5)}};
    CHECK_THROWS_AS((void)apply(a.map(), matrix<double>(14, 1)), contract_violation);
}

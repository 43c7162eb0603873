// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/kinds/lokr.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<kronecker_operator<float>>);

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
            matrix<double> rows = matrix<double>::Ones(15, 4);  // of both blocks
            a.add_rows(-0.5, 3, rows);
            CHECK(max_abs_diff(rows, matrix<double>(1 - 0.5 * want.middleRows(3, 4).transpose().array())) < 1e-13);
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

TEST_CASE("dimensions factor as in LyCORIS, and a new adapter changes nothing") {
    using pair = std::pair<lowrank::index, lowrank::index>;
    CHECK(lokr_factorization(127) == pair(1, 127));
    CHECK(lokr_factorization(128) == pair(8, 16));
    CHECK(lokr_factorization(512) == pair(16, 32));
    CHECK(lokr_factorization(768) == pair(24, 32));
    CHECK(lokr_factorization(11008) == pair(86, 128));
    CHECK(lokr_factorization(32000) == pair(160, 200));
    CHECK(lokr_factorization(250, 4) == pair(2, 125));
    CHECK(lokr_factorization(768, 4) == pair(4, 192));
    CHECK(lokr_factorization(1001, 4) == pair(1, 1001));
    CHECK(lokr_factorization(250, 8) == pair(5, 50));
    CHECK(lokr_factorization(1001, 8) == pair(7, 143));
    CHECK(lokr_factorization(128, 64) == pair(2, 64));
    for (const bool both : {false, true}) {
        const auto a = make_lokr<double>(48, 32, {.r = 2, .decompose_both = both, .seed = 1});
        CHECK(a.map().rows() == 48);
        CHECK(a.map().cols() == 32);
        CHECK(a.w1.whole() == !both);
        CHECK_FALSE(a.w2.whole());
        CHECK(a.delta().dense().isZero(0));
    }
    CHECK(make_lokr<double>(48, 32, {.r = 4}).w2.whole());
}

TEST_CASE("a product of rank 0 is a matrix of zeros of its shape, not a whole matrix without columns") {
    const lokr_factor<double> none{.left = matrix<double>(4, 0), .right = matrix<double>(0, 5)};
    CHECK_FALSE(none.whole());
    CHECK(none.cols() == 5);
    CHECK(none.dense().rows() == 4);
    CHECK(none.dense().isZero(0));
    const lokr_adapter<double> a{.w1 = {.left = random_matrix<double>(3, 2, 1)}, .w2 = none, .alpha = 4, .r = 2};
    CHECK(a.rows() == 12);
    CHECK(a.cols() == 10);
    CHECK(a.delta().dense().isZero(0));
    CHECK(apply(a.map(), random_matrix<double>(10, 2, 2)).isZero(0));
}

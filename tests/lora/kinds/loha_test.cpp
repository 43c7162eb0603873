// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/kinds/loha.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the factors of r^2 columns give the entrywise product; gradients are right") {
    loha_adapter<double> a{.w1_a = random_matrix<double>(5, 3, 1),
                           .w1_b = random_matrix<double>(3, 7, 2),
                           .w2_a = random_matrix<double>(5, 3, 3),
                           .w2_b = random_matrix<double>(3, 7, 4),
                           .alpha = 6};
    const matrix<double> want = 2 * (a.w1_a * a.w1_b).cwiseProduct(a.w2_a * a.w2_b);
    CHECK(a.delta().rank() == 9);
    CHECK(max_abs_diff(a.delta().dense(), want) < 1e-13);
    matrix<double> rows = matrix<double>::Ones(7, 3);
    a.add_rows(-0.5, 2, rows);
    CHECK(max_abs_diff(rows, matrix<double>(1 - 0.5 * want.middleRows(2, 3).transpose().array())) < 1e-13);
    const auto g = probe_gradient(a);
    const auto loss = [&] { return probe_loss(a); };
    CHECK(relative_diff(g.w1_a, numeric_gradient(a.w1_a, loss)) < 1e-7);
    CHECK(relative_diff(g.w1_b, numeric_gradient(a.w1_b, loss)) < 1e-7);
    CHECK(relative_diff(g.w2_a, numeric_gradient(a.w2_a, loss)) < 1e-7);
    CHECK(relative_diff(g.w2_b, numeric_gradient(a.w2_b, loss)) < 1e-7);
    a.w2_b.resize(3, 6);
    CHECK_THROWS_AS((void)a.delta(), contract_violation);
}

TEST_CASE("a new LoHa changes nothing, and its seed and stream name its values") {
    const auto a = make_loha<float>(6, 9, {.r = 3, .seed = 1, .stream = 2});
    CHECK(a.delta().dense().isZero(0));
    CHECK(a.w1_a.cwiseAbs().maxCoeff() <= 1 / std::sqrt(3.0F));
    CHECK(a.w1_b.cwiseAbs().maxCoeff() <= 1 / std::sqrt(9.0F));
    CHECK(same_bits(a.w2_b, make_loha<float>(6, 9, {.r = 3, .seed = 1, .stream = 2}).w2_b));
    CHECK_FALSE(same_bits(a.w2_b, make_loha<float>(6, 9, {.r = 3, .seed = 1, .stream = 3}).w2_b));
    CHECK_FALSE(same_bits(a.w1_b, a.w2_b));
}

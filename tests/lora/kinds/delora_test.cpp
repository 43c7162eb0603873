// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/kinds/delora.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(factored_adapter<delora_adapter<float>>);

namespace {

delora_adapter<double> some_delora() {
    delora_adapter<double> a{.delora_A = random_matrix<double>(3, 7, 1),
                             .delora_B = random_matrix<double>(5, 3, 2),
                             .delora_w_norm = random_matrix<double>(7, 1, 3).cwiseAbs()};
    a.delora_lambda.setConstant(1, 2.5);
    return a;
}

}  // namespace

TEST_CASE("the change is the sum of normalised terms, its length bounded by lambda; gradients are right") {
    auto a = some_delora();
    matrix<double> want = matrix<double>::Zero(5, 7);
    for (lowrank::index i = 0; i < 3; ++i) {
        want += 2.5 / 3 * a.delora_B.col(i).normalized() * a.delora_A.row(i).normalized();
    }
    CHECK(want.norm() <= 2.5);
    CHECK(relative_diff(a.delta().dense(), matrix<double>(want * a.delora_w_norm.asDiagonal())) < 1e-14);
    auto twice = a;
    twice.delora_A *= 2;  // lengths of the factors do not matter
    CHECK(relative_diff(twice.delta().dense(), a.delta().dense()) < 1e-14);

    const auto g = probe_gradient(a);
    const auto loss = [&] { return probe_loss(a); };
    CHECK(relative_diff(g.delora_A, numeric_gradient(a.delora_A, loss)) < 1e-7);
    CHECK(relative_diff(g.delora_B, numeric_gradient(a.delora_B, loss)) < 1e-7);
    CHECK(relative_diff(g.delora_lambda, numeric_gradient(a.delora_lambda, loss)) < 1e-7);
}

TEST_CASE("lengths below a ten-thousandth count as that, with the gradient of a constant") {
    auto a = some_delora();
    a.delora_B.col(1) *= 1e-6;
    a.delora_A.row(2) *= 1e-6;
    const double short_b = a.delora_B.col(1).norm();
    const matrix<double> term = 2.5 / 3 * a.delora_B.col(1) / 1e-4 * a.delora_A.row(1).normalized();
    auto without = a;
    without.delora_B.col(1).setZero();
    const matrix<double> difference = a.delta().dense() - without.delta().dense();
    CHECK(short_b < 1e-4);
    CHECK(relative_diff(difference, matrix<double>(term * a.delora_w_norm.asDiagonal())) < 1e-9);
    const auto g = probe_gradient(a);
    const auto loss = [&] { return probe_loss(a); };
    CHECK(relative_diff(g.delora_A.row(2), numeric_gradient(a.delora_A, loss, 1e-8).row(2)) < 1e-5);
    CHECK(relative_diff(g.delora_B.col(1), numeric_gradient(a.delora_B, loss, 1e-8).col(1)) < 1e-5);
}

TEST_CASE("a new adapter changes nothing and keeps the lengths of the base's columns") {
    const row_matrix<double> w = random_weight<double>(90, 130, 1);
    const auto a = make_delora<double>(as_operator(w), {.r = 4, .delora_lambda = 3, .seed = 2});
    CHECK(detail::all_zero(a.delta().left));
    CHECK(a.delora_lambda(0) == 3);
    CHECK(relative_diff(a.delora_w_norm, vector<double>(w.colwise().norm().transpose())) < 1e-13);
    CHECK_THROWS_AS((void)make_delora<double>(as_operator(w), {.r = 0}), contract_violation);
    auto wrong = a;
    wrong.delora_w_norm.conservativeResize(100);
    CHECK_THROWS_AS((void)wrong.delta(), contract_violation);
}

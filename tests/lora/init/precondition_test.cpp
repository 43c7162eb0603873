// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/init/precondition.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("preconditioned gradients solve the equations of the other factor", S, float, double) {
    const auto a = random_matrix<S>(3, 9, 1);
    const auto b = random_matrix<S>(7, 3, 2);
    const auto ga = random_matrix<S>(3, 9, 3);
    const auto gb = random_matrix<S>(7, 3, 4);
    matrix<S> pa = ga;
    matrix<S> pb = gb;
    precondition_riemannian<S>(a, b, pa, pb, 0.5);
    const matrix<S> unit = matrix<S>::Identity(3, 3);
    CHECK(relative_diff(matrix<S>((b.transpose() * b + S(0.5) * unit) * pa), ga.template cast<double>()) <
          100 * epsilon<S>);
    CHECK(relative_diff(matrix<S>(pb * (a * a.transpose() + S(0.5) * unit)), gb.template cast<double>()) <
          100 * epsilon<S>);
    pb = gb;
    precondition_frozen_a<S>(a, 2.0, pb, 1e-14);
    CHECK(relative_diff(matrix<S>(S(4) * pb * (a * a.transpose())), gb.template cast<double>()) < 1000 * epsilon<S>);
    matrix<S> wrong(2, 9);
    CHECK_THROWS_AS(precondition_riemannian<S>(a, b, wrong, pb), contract_violation);
    CHECK_THROWS_AS(precondition_frozen_a<S>(a, 0.0, pb), contract_violation);
}

TEST_CASE("a Riemannian step of the product does not depend on how it is split into factors") {
    const auto a = random_matrix<double>(2, 6, 1);
    const auto b = random_matrix<double>(5, 2, 2);
    const auto g = random_matrix<double>(5, 6, 3);  // gradient of the product B A
    const auto step = [&](double c) {
        const matrix<double> a1 = c * a;
        const matrix<double> b1 = b / c;
        matrix<double> ga = b1.transpose() * g;
        matrix<double> gb = g * a1.transpose();
        precondition_riemannian<double>(a1, b1, ga, gb, 1e-12);
        return matrix<double>((b1 - 1e-3 * gb) * (a1 - 1e-3 * ga));
    };
    CHECK(relative_diff(step(30.0), step(1.0)) < 1e-10);
}

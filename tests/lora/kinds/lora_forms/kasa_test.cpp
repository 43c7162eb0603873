// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/kinds/lora_forms/kasa.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("KaSA: the change is scaling * B diag(d) A; gradients of it and of the penalty are right") {
    kasa_adapter<double> a{.lora_A = random_matrix<double>(3, 6, 1),
                           .lora_B = random_matrix<double>(5, 3, 2),
                           .lora_diag = random_matrix<double>(3, 1, 3),
                           .lora_alpha = 7};
    const matrix<double> want = 7.0 / 3 * a.lora_B * a.lora_diag.asDiagonal() * a.lora_A;
    CHECK(max_abs_diff(a.delta().dense(), want) < 1e-13);
    const auto g = probe_gradient(a);
    const auto loss = [&] { return probe_loss(a); };
    CHECK(relative_diff(g.lora_A, numeric_gradient(a.lora_A, loss)) < 1e-7);
    CHECK(relative_diff(g.lora_B, numeric_gradient(a.lora_B, loss)) < 1e-7);
    CHECK(relative_diff(g.lora_diag, numeric_gradient(a.lora_diag, loss)) < 1e-7);

    auto zero = [&] {
        auto z = a;
        z.lora_A.setZero();
        z.lora_B.setZero();
        z.lora_diag.setZero();
        return z;
    };
    auto p = zero();
    const double value = kasa_penalty(a, p, 0.3, 0.2);
    const matrix<double> eye = matrix<double>::Identity(3, 3);
    CHECK(value ==
          doctest::Approx(0.3 * a.lora_diag.squaredNorm() + 0.2 * ((a.lora_B.transpose() * a.lora_B - eye).norm() +
                                                                   (a.lora_A * a.lora_A.transpose() - eye).norm())));
    const auto penalty = [&] {
        auto unused = zero();
        return kasa_penalty(a, unused, 0.3, 0.2);
    };
    CHECK(relative_diff(p.lora_A, numeric_gradient(a.lora_A, penalty)) < 1e-7);
    CHECK(relative_diff(p.lora_B, numeric_gradient(a.lora_B, penalty)) < 1e-7);
    CHECK(relative_diff(p.lora_diag, numeric_gradient(a.lora_diag, penalty)) < 1e-7);
    a.lora_diag.resize(2);
    CHECK_THROWS_AS((void)a.delta(), contract_violation);
}

TEST_CASE("KaSA starts at a change of zero and names the part of W it replaces") {
    const matrix<float> w = random_matrix<float>(9, 7, 4);
    const auto spec = svd(w).value();
    const auto start = kasa(spec, {.r = 2, .lora_alpha = 4, .seed = 3});
    CHECK(start.adapter.delta().dense().isZero());
    CHECK_FALSE(start.adapter.lora_diag.isZero());
    CHECK(max_abs_diff(w - start.noise.dense(), spec.truncate(5).dense()) < 1e-5);
    CHECK_THROWS_AS((void)kasa(spec, {.r = 7}), contract_violation);
}

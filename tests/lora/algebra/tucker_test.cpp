// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/algebra/tucker.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("tucker_right is its sum, and its gradients agree with finite differences") {
    const lowrank::index taps = 3;
    auto t = random_matrix<double>(2, 4 * taps, 1);
    auto b = random_matrix<double>(4, 5, 2);
    const auto m = tucker_right(t, b, taps);
    for (lowrank::index i = 0; i < 2; ++i) {
        for (lowrank::index q = 0; q < 5; ++q) {
            for (lowrank::index k = 0; k < taps; ++k) {
                double sum = 0;
                for (lowrank::index j = 0; j < 4; ++j) {
                    sum += t(i, j * taps + k) * b(j, q);
                }
                CHECK(m(i, q * taps + k) == doctest::Approx(sum));
            }
        }
    }
    const auto dm = random_matrix<double>(2, 5 * taps, 3);
    const auto loss = [&] { return tucker_right(t, b, taps).cwiseProduct(dm).sum(); };
    const auto g = tucker_backward(t, b, taps, dm);
    CHECK(relative_diff(g.t, numeric_gradient(t, loss)) < 1e-7);
    CHECK(relative_diff(g.b, numeric_gradient(b, loss)) < 1e-7);
    CHECK_THROWS_AS((void)tucker_right(t, b, 2), contract_violation);
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/lora/train/trainable.hpp>

#include <limits>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("clipping scales all gradients by one factor, only if the norm is too large", S, float, double) {
    matrix<S> a = matrix<S>::Zero(2, 2);
    matrix<S> b = matrix<S>::Zero(1, 1);
    matrix<S> ga = matrix<S>::Constant(2, 2, S(2));
    matrix<S> gb = matrix<S>::Constant(1, 1, S(3));
    const std::vector<trainable<S>> list{make_trainable(a, ga), make_trainable(b, gb)};
    CHECK(gradient_norm(list) == doctest::Approx(5));
    CHECK(clip_gradients(list, 6.0) == doctest::Approx(5));
    CHECK(ga(0, 0) == S(2));
    CHECK(clip_gradients(list, 1.0) == doctest::Approx(5));
    CHECK(double(ga(1, 1)) == doctest::Approx(2 / (5 + 1e-6)).epsilon(1e-6));
    CHECK(double(gb(0, 0)) == doctest::Approx(3 / (5 + 1e-6)).epsilon(1e-6));

    gb(0, 0) = std::numeric_limits<S>::infinity();
    CHECK_FALSE(is_finite(clip_gradients(list, 1.0)));
    CHECK(double(ga(1, 1)) == doctest::Approx(2 / (5 + 1e-6)).epsilon(1e-6));
    CHECK_THROWS_AS((void)clip_gradients(list, 0.0), contract_violation);
}

TEST_CASE("a list borrows the factors of an adapter in the groups it is told") {
    auto adapter = random_adapter<double>(4, 3, {.r = 2, .seed = 1});
    auto gradient = zero_gradient(adapter);
    std::vector<trainable<double>> list;
    append(list, adapter, gradient, 1, 2);
    REQUIRE(list.size() == 2);
    CHECK(list[0].value.data() == adapter.lora_A.data());
    CHECK(list[1].gradient.data() == gradient.lora_B.data());
    CHECK(list[0].group == 1);
    CHECK(list[1].group == 2);
    matrix<double> small(1, 2);
    CHECK_THROWS_AS((void)make_trainable(adapter.lora_A, small), contract_violation);
}

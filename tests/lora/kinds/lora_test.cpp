// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/kinds/lora.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<lora_adapter<float>> && linear_operator<lora_adapter<double>>);

TEST_CASE("scaling is alpha / r, or alpha / sqrt(r)") {
    CHECK(lora_scaling(16, 8, false) == 2.0);
    CHECK(lora_scaling(16, 4, true) == 8.0);
    CHECK(lora_scaling(16, 0, false) == 0.0);
    CHECK_THROWS_AS((void)lora_scaling(16, -1, false), contract_violation);
}

TEST_CASE_TEMPLATE("a new adapter has a uniform A, a zero B and changes nothing", S, float, double) {
    const auto a = make_lora<S>(30, 400, {.r = 5, .lora_alpha = 10, .lora_dropout = 0.25, .seed = 4, .stream = 2});
    CHECK(a.rows() == 30);
    CHECK(a.cols() == 400);
    CHECK(a.rank() == 5);
    CHECK(a.scaling() == S(2));
    CHECK(a.lora_dropout == 0.25);
    CHECK((a.lora_B.array() == 0).all());
    const double bound = 1 / std::sqrt(400.0);
    CHECK(a.lora_A.cwiseAbs().maxCoeff() <= bound * 1.000001);
    CHECK(a.lora_A.cwiseAbs().maxCoeff() > 0.98 * bound);
    // A uniform variable on +-b has mean 0 and variance b^2 / 3; five standard deviations of 2000 draws.
    CHECK(std::abs(static_cast<double>(a.lora_A.mean())) < 5 * bound / std::sqrt(3.0 * 2000));
    CHECK(a.lora_A.template cast<double>().squaredNorm() / 2000 == doctest::Approx(bound * bound / 3).epsilon(0.1));

    CHECK(same_bits(a.lora_A, make_lora<S>(7, 400, {.r = 5, .seed = 4, .stream = 2}).lora_A));
    CHECK_FALSE(same_bits(a.lora_A, make_lora<S>(30, 400, {.r = 5, .seed = 4, .stream = 3}).lora_A));
    CHECK_FALSE(same_bits(a.lora_A, make_lora<S>(30, 400, {.r = 5, .seed = 5, .stream = 2}).lora_A));
}

TEST_CASE_TEMPLATE("the adapter, its delta and the dense product are one linear operator", S, float, double) {
    for (const bool rslora : {false, true}) {
        const auto a = random_adapter<S>(9, 14, {.r = 4, .lora_alpha = 6, .use_rslora = rslora, .seed = 1});
        const matrix<double> dense =
            lora_scaling(6, 4, rslora) * a.lora_B.template cast<double>() * a.lora_A.template cast<double>();
        const auto x = random_matrix<S>(14, 5, 1);
        const auto xt = random_matrix<S>(9, 5, 2);
        const double tolerance = 100 * epsilon<S>;
        CHECK(relative_diff(a.delta().dense(), dense) < tolerance);
        CHECK(relative_diff(apply(a, x), matrix<double>(dense * x.template cast<double>())) < tolerance);
        CHECK(relative_diff(apply_transposed(a, xt), matrix<double>(dense.transpose() * xt.template cast<double>())) <
              tolerance);
    }
}

TEST_CASE("shapes and options that make no sense are contract violations") {
    CHECK_THROWS_AS((void)make_lora<float>(3, 4, {.r = 0}), contract_violation);
    CHECK_THROWS_AS((void)make_lora<float>(-1, 4), contract_violation);
    CHECK_THROWS_AS((void)make_lora<float>(3, 4, {.lora_dropout = 1}), contract_violation);
    const auto a = make_lora<float>(3, 4, {.r = 2});
    CHECK_THROWS_AS((void)apply(a, matrix<float>(5, 1)), contract_violation);
    CHECK_THROWS_AS((void)apply_transposed(a, matrix<float>(4, 1)), contract_violation);
}

TEST_CASE("empty shapes work") {
    const auto a = make_lora<double>(0, 6, {.r = 2});
    CHECK(apply(a, matrix<double>::Ones(6, 3).eval()).size() == 0);
    const auto b = random_adapter<double>(6, 0, {.r = 2});
    CHECK(apply(b, matrix<double>(0, 3)).isZero(0));
    lora_adapter<double> none{.lora_A = matrix<double>(0, 4), .lora_B = matrix<double>(5, 0)};
    CHECK(none.scaling() == 0);
    CHECK(apply(none, matrix<double>::Ones(4, 2).eval()).isZero(0));
}

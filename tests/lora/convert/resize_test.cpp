// SPDX-License-Identifier: MIT
#include <lowrank/lora/convert/resize.hpp>

#include <cmath>

#include <lowrank/factor/svd.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class S>
lowrank::matrix<double> resized_delta(const lora_adapter<S>& a) {
    return lora_scaling(a.lora_alpha, a.rank(), a.use_rslora) *
           (a.lora_B.template cast<double>() * a.lora_A.template cast<double>());
}

/// An adapter whose B A has the singular values 8, 4, 2, .. 1/16.
lora_adapter<double> with_halving_values() {
    matrix<double> b = matrix<double>::Zero(20, 8);
    matrix<double> a = matrix<double>::Zero(8, 30);
    for (lowrank::index i = 0; i < 8; ++i) {
        b(2 * i, i) = std::ldexp(1.0, 3 - static_cast<int>(i));
        a(i, 3 * i) = 1;
    }
    return {.lora_A = a, .lora_B = b, .lora_alpha = 4};
}

}  // namespace

TEST_CASE_TEMPLATE("64 to 32 is what the dense SVD gives", S, float, double) {
    const auto a = random_adapter<S>(150, 120, {.r = 64, .lora_alpha = 16, .seed = 3});
    const auto small = resize_lora(a, fixed_rank(32));
    REQUIRE(small);
    CHECK(small.adapter.rank() == 32);
    CHECK(small.adapter.scaling() == doctest::Approx(a.scaling()));
    const matrix<double> wide = resized_delta(a);
    const auto f = svd(wide);
    const matrix<double> best = f.u.leftCols(32) * f.s.head(32).asDiagonal() * f.v.leftCols(32).transpose();
    CHECK((resized_delta(small.adapter) - best).norm() < 1e-6 * wide.norm());
    CHECK(small.error == doctest::Approx((resized_delta(small.adapter) - wide).norm()).epsilon(1e-5));
    // kohya's form: A has orthonormal rows.
    CHECK(max_abs_diff(small.adapter.lora_A * small.adapter.lora_A.transpose(), matrix<S>::Identity(32, 32)) < 1e-5);
}

TEST_CASE("kohya's dynamic rules give its ranks, alphas and reports") {
    const auto a = with_halving_values();
    const auto ratio = resize_lora(a, {.rule = rank_rule::kohya_ratio, .value = 5, .max_rank = 100});
    CHECK(ratio.adapter.rank() == 4);
    CHECK(ratio.adapter.lora_alpha == doctest::Approx(0.5 * 4));
    CHECK(ratio.max_ratio == doctest::Approx(8));
    CHECK(ratio.sum_retained == doctest::Approx(15 / 15.9375));
    CHECK(ratio.frobenius_retained == doctest::Approx(std::sqrt(85.0 / (85.0 + 1.0 / 3 * (1 - std::pow(0.25, 4))))));
    CHECK(resize_lora(a, {.rule = rank_rule::kohya_frobenius, .value = 0.95, .max_rank = 100}).adapter.rank() == 3);
    CHECK(resize_lora(a, {.rule = rank_rule::kohya_cumulative, .value = 0.9, .max_rank = 100}).adapter.rank() == 5);
    CHECK(resize_lora(a, {.rule = rank_rule::kohya_cumulative, .value = 0.9, .max_rank = 2}).adapter.rank() == 2);
}

TEST_CASE("rank zero, a change of zero, rsLoRA and ranks above the shape") {
    auto a = random_adapter<double>(5, 40, {.r = 9, .lora_alpha = 6, .use_rslora = true});
    const auto capped = resize_lora(a, fixed_rank(20));
    CHECK(capped.adapter.rank() == 5);
    CHECK(capped.adapter.scaling() == doctest::Approx(a.scaling()));
    CHECK(max_abs_diff(resized_delta(capped.adapter), resized_delta(a)) < 1e-12);
    const auto none = resize_lora(a, fixed_rank(0));
    CHECK(none.adapter.rank() == 0);
    CHECK(none.relative == doctest::Approx(1));
    CHECK(none.adapter.delta().dense().isZero());
    a.lora_B.setZero();
    const auto zero = resize_lora(a, {.rule = rank_rule::kohya_ratio, .value = 5, .max_rank = 8});
    CHECK(zero.adapter.rank() == 1);
    CHECK(zero.relative == 0);
    a.lora_B(0, 0) = std::nan("");
    CHECK(resize_lora(a, fixed_rank(2)).why.code == errc::non_finite);
}

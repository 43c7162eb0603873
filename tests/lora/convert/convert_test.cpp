// SPDX-License-Identifier: MIT
#include <lowrank/lora/convert/convert.hpp>

#include <cmath>
#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/kinds/loha.hpp>
#include <lowrank/lora/kinds/lokr.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class S>
lowrank::matrix<double> wide_delta(const lora_adapter<S>& a) {
    return double(a.scaling()) * (a.lora_B.template cast<double>() * a.lora_A.template cast<double>());
}

}  // namespace

TEST_CASE_TEMPLATE("conversion to full rank reproduces the change; below it the stated error is exact", S, float,
                   double) {
    const loha_adapter<S> loha{.w1_a = random_matrix<S>(14, 3, 1),
                               .w1_b = random_matrix<S>(3, 11, 2),
                               .w2_a = random_matrix<S>(14, 2, 3),
                               .w2_b = random_matrix<S>(2, 11, 4),
                               .alpha = 5};
    const matrix<double> change = loha.delta().dense().template cast<double>();
    const double norm = change.norm();
    const auto full = to_lora(loha, {.rule = rank_rule::relative_error, .value = 0});
    REQUIRE(full);
    CHECK(full.adapter.rank() <= 11);
    CHECK(full.adapter.scaling() == S(1));
    CHECK((wide_delta(full.adapter) - change).norm() < 40 * epsilon<S> * norm);

    const auto small = to_lora(loha, fixed_rank(3));
    CHECK(small.adapter.rank() == 3);
    CHECK(small.error == doctest::Approx((wide_delta(small.adapter) - change).norm()).epsilon(1e3 * epsilon<S>));
    CHECK(small.relative == doctest::Approx(small.error / norm).epsilon(1e3 * epsilon<S>));

    // The dense way and the factored way are the same adapter.
    const auto dense = to_lora(matrix<S>(loha.delta().dense()), fixed_rank(3));
    CHECK((wide_delta(dense.adapter) - wide_delta(small.adapter)).norm() < 400 * epsilon<S> * norm);
    const auto fast = to_lora_fast(loha.delta(), fixed_rank(3), {.oversample = 8, .power_iterations = 2});
    CHECK((wide_delta(fast.adapter) - wide_delta(small.adapter)).norm() < 400 * epsilon<S> * norm);

    const auto by_energy = to_lora(loha, {.rule = rank_rule::energy, .value = 0.9});
    CHECK(by_energy.relative * by_energy.relative <= 0.1 + 1e-6);
}

TEST_CASE("linear operators without factors and LoRA itself convert, too") {
    const lokr_adapter<double> lokr{.w1 = {.left = random_matrix<double>(2, 3, 5)},
                                    .w2 = {.left = random_matrix<double>(4, 2, 6)},
                                    .alpha = 4,
                                    .r = 8};
    const auto map = lokr.map();
    CHECK(max_abs_diff(dense_of(map), lokr.delta().dense()) < 1e-14);
    const auto full = to_lora(map, {.rule = rank_rule::relative_error, .value = 1e-12});
    CHECK(max_abs_diff(wide_delta(full.adapter), lokr.delta().dense()) < 1e-13);

    const auto lora = random_adapter<double>(9, 7, {.r = 4, .lora_alpha = 3, .use_rslora = true});
    const auto same = to_lora(lora, fixed_rank(4));
    CHECK(max_abs_diff(wide_delta(same.adapter), wide_delta(lora)) < 1e-13);
    CHECK(dense_of(any_operator<double>(lora)).isApprox(wide_delta(lora), 1e-13));

    auto bad = lora;
    bad.lora_A(1, 2) = std::numeric_limits<double>::quiet_NaN();
    CHECK(to_lora(bad, fixed_rank(2)).why.code == errc::non_finite);
}

TEST_CASE("fast conversion reads the same ranks from leading values as from the whole spectrum") {
    // Singular values 1, 0.8, 0.64, ..: rules need from one to many of them.
    matrix<double> w = matrix<double>::Zero(160, 140);
    for (lowrank::index i = 0; i < 140; ++i) {
        w(i, i) = std::pow(0.8, static_cast<double>(i));
    }
    const auto spec = svd(w).value();
    const rank_choice choices[] = {fixed_rank(0),
                                   fixed_rank(5),
                                   {.rule = rank_rule::energy, .value = 0.9},
                                   {.rule = rank_rule::energy, .value = 0.999999},
                                   {.rule = rank_rule::frobenius_share, .value = 0.99},
                                   {.rule = rank_rule::relative_error, .value = 1e-3},
                                   {.rule = rank_rule::relative_error, .value = 1e-3, .max_rank = 7},
                                   {.rule = rank_rule::ratio, .value = 0.013},
                                   {.rule = rank_rule::threshold, .value = 0.3, .min_rank = 9},
                                   {.rule = rank_rule::kohya_ratio, .value = 50},
                                   {.rule = rank_rule::sum_share, .value = 0.5}};
    for (const auto& choice : choices) {
        const auto exact = to_lora(spec, choice);
        const auto fast = to_lora_fast(w, choice);
        REQUIRE(fast);
        CHECK(fast.adapter.rank() == exact.adapter.rank());
        CHECK(fast.relative == doctest::Approx(exact.relative).epsilon(1e-6).scale(1e-6));
        CHECK(max_abs_diff(wide_delta(fast.adapter), wide_delta(exact.adapter)) < 1e-6);
        const auto by_map = to_lora_fast(any_operator<double>(as_operator(w)), choice);
        CHECK(std::abs(by_map.adapter.rank() - exact.adapter.rank()) <= 2);  // its error is an estimate
    }
    CHECK(to_lora_fast(matrix<double>(0, 3), fixed_rank(2)).adapter.rank() == 0);
    w(3, 3) = std::numeric_limits<double>::infinity();
    CHECK(to_lora_fast(w, fixed_rank(2)).why.code == errc::non_finite);
}

TEST_CASE("a trained PiSSA adapter as LoRA on the original weight: W + plain = residual + trained") {
    for (const bool rslora : {false, true}) {
        const lora_options options{.r = 3, .lora_alpha = 7, .use_rslora = rslora, .seed = 1};
        const auto initial = random_adapter<double>(8, 6, options);
        auto trained = initial;
        trained.lora_A += random_matrix<double>(3, 6, 9);
        trained.lora_B += random_matrix<double>(8, 3, 10);
        const auto plain = plain_lora(trained, initial);
        CHECK(plain.rank() == 6);
        CHECK(plain.scaling() == doctest::Approx(trained.scaling()));
        CHECK(max_abs_diff(wide_delta(plain), wide_delta(trained) - wide_delta(initial)) < 1e-13);
        auto other = initial;
        other.lora_alpha = 8;
        CHECK_THROWS_AS((void)plain_lora(trained, other), contract_violation);
    }
}

TEST_CASE("transposed storage and padding keep the change") {
    const auto a = random_adapter<float>(8, 6, {.r = 3, .lora_alpha = 7});
    CHECK(max_abs_diff(wide_delta(lowrank::transpose(a)), wide_delta(a).transpose()) == 0);
    const auto padded = pad_rank(a, 5);
    CHECK(padded.rank() == 5);
    CHECK(max_abs_diff(wide_delta(padded), wide_delta(a)) < 1e-6);
    CHECK_THROWS_AS((void)pad_rank(a, 2), contract_violation);
    const auto raw = as_lora(a.delta(), true);
    CHECK(raw.scaling() == doctest::Approx(1));
    CHECK(same_bits(raw.lora_A, a.lora_A));
}

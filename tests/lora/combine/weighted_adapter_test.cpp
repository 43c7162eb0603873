// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/combine/weighted_adapter.hpp>

#include <cmath>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

std::vector<lora_adapter<double>> three_adapters(bool rslora) {
    std::vector<lora_adapter<double>> all;
    for (int i = 0; i < 3; ++i) {
        all.push_back(random_adapter<double>(
            12, 9, {.r = 3, .lora_alpha = 2.0 + i, .use_rslora = rslora, .seed = std::uint64_t(i)}));
    }
    return all;
}

}  // namespace

TEST_CASE(
    "cat and svd under the fixed rule are the weighted sum of the changes; the snapshot's svd has the scaling twice") {
    for (const bool rslora : {false, true}) {
        const auto adapters = three_adapters(rslora);
        const std::vector<double> weights{.5, -1, 2};
        matrix<double> sum = matrix<double>::Zero(12, 9);
        matrix<double> twice = sum;
        for (std::size_t i = 0; i < 3; ++i) {
            sum += weights[i] * adapters[i].delta().dense();
            twice += weights[i] * adapters[i].scaling() * adapters[i].delta().dense();
        }
        const auto by = [&](combination_type type, weighted_rule rule) {
            return weighted_adapter<double>(adapters, weights, {.type = type, .rule = rule, .svd_rank = 9}).value();
        };
        CHECK(max_abs_diff(by(combination_type::cat, weighted_rule::fixed).delta().dense(), sum) < 1e-12);
        CHECK(by(combination_type::cat, weighted_rule::fixed).scaling() == doctest::Approx(1));
        CHECK(max_abs_diff(by(combination_type::svd, weighted_rule::fixed).delta().dense(), sum) < 1e-12);
        const auto old = by(combination_type::svd, weighted_rule::peft_0_20);
        CHECK(max_abs_diff(old.delta().dense(), old.scaling() * twice) < 1e-11);
        CHECK(old.scaling() == doctest::Approx(rslora ? 3 : 1));
    }
}

TEST_CASE("the svd types truncate the rule on the true changes; clamping cuts both factors") {
    const auto adapters = three_adapters(false);
    const std::vector<double> weights{1, 1, 1};
    for (const char* name : {"ties", "dare_linear", "dare_ties", "magnitude_prune"}) {
        weighted_options o{.type = combination_type_from_name(std::string(name) + "_svd").value(),
                           .rule = weighted_rule::fixed,
                           .svd_rank = 9,
                           .density = .5,
                           .seed = 4};
        const auto whole = weighted_adapter<double>(adapters, weights, o).value();
        o.svd_rank = 2;
        const auto part = weighted_adapter<double>(adapters, weights, o).value();
        CHECK(part.rank() == 2);
        const auto best = svd(matrix<double>(whole.delta().dense())).value().truncate(2).dense();
        CHECK(max_abs_diff(part.delta().dense(), best) < 1e-11);
        o.svd_clamp = .9;
        const auto clamped = weighted_adapter<double>(adapters, weights, o).value();
        const double high = std::max(clamped.lora_A.maxCoeff(), clamped.lora_B.maxCoeff());
        CHECK(high < part.lora_B.cwiseAbs().maxCoeff());
        CHECK(clamped.lora_B.cwiseAbs().maxCoeff() <= high);
    }
    // A rank above that of the sum is filled up with zeros.
    const std::vector<lora_adapter<double>> two{adapters[0], adapters[0]};
    const auto padded = weighted_adapter<double>(two, std::vector<double>{1, 1}, {.svd_rank = 8}).value();
    CHECK(padded.rank() == 8);
    CHECK(padded.lora_B.rightCols(2).isZero());
}

TEST_CASE("one adapter is linear, unequal ranks need cat or svd, names are PEFT's, NaN is refused") {
    auto adapters = three_adapters(false);
    const auto one = weighted_adapter<double>({adapters.data(), 1}, std::vector<double>{-.5}, {.svd_rank = 7}).value();
    CHECK(one.rank() == 3);
    CHECK(max_abs_diff(one.delta().dense(), -.5 * adapters[0].delta().dense()) < 1e-13);
    CHECK_FALSE(combination_type_from_name("cats").has_value());
    adapters[1] = random_adapter<double>(12, 9, {.r = 2});
    const std::vector<double> weights{1, 1, 1};
    CHECK_THROWS_AS((void)weighted_adapter<double>(adapters, weights, {.type = combination_type::ties}),
                    contract_violation);
    CHECK(weighted_adapter<double>(adapters, weights, {.type = combination_type::cat}).value().rank() == 8);
    adapters[2].lora_A(0, 0) = std::nan("");
    CHECK(weighted_adapter<double>(adapters, weights, {}).error().code == errc::non_finite);
}

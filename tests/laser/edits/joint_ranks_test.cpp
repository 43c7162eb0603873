// SPDX-License-Identifier: MIT
#include <lowrank/laser/edits/joint_ranks.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

using namespace lowrank;

namespace {

sigma_scores scores_of(const std::vector<double>& sigma, const std::vector<double>& gradient) {
    sigma_scores s{.samples = 10};
    const auto n = static_cast<lowrank::index>(sigma.size());
    s.sigma = Eigen::Map<const vector<double>>(sigma.data(), n);
    s.gradient = Eigen::Map<const vector<double>>(gradient.data(), n);
    s.fisher = s.gradient.cwiseAbs2();
    s.change = vector<double>::Zero(n + 1);
    for (lowrank::index k = n; k-- > 0;) {
        s.change(k) = s.change(k + 1) - s.sigma(k) * s.gradient(k);
    }
    return s;
}

}  // namespace

TEST_CASE("components that help when they go are dropped, and those that matter most stay when the budget binds") {
    // Dropping the last two of `a` helps; of `b` every component matters, the first most.
    const std::vector<sigma_scores> weights = {scores_of({4, 3, 2, 1}, {-1, -0.5, 0.3, 0.2}),
                                               scores_of({4, 3, 2, 1}, {-2, -0.1, -0.1, -0.1})};
    const std::vector<weight_shape> shapes = {{4, 6}, {6, 4}};
    const auto free = joint_ranks(weights, shapes, 1000, false);
    CHECK(free.ranks == std::vector<lowrank::index>{2, 4});
    CHECK(free.parameters == 20 + 24);  // rank 4 of 6 x 4 is the weight itself
    CHECK(free.predicted_change == doctest::Approx(-(2 * 0.3 + 1 * 0.2)));
    const auto tight = joint_ranks(weights, shapes, 30, false);
    CHECK(tight.ranks == std::vector<lowrank::index>{2, 1});
    const auto one = joint_ranks(weights, shapes, 10, false);
    CHECK(one.ranks == std::vector<lowrank::index>{0, 1});
    CHECK(joint_ranks(weights, shapes, 0, false).parameters == 0);
    CHECK(joint_ranks({}, {}, 0).ranks.empty());
    CHECK_THROWS_AS((void)joint_ranks(weights, {}, 10), contract_violation);
}

TEST_CASE("two weights that matter as they are stay, where both fit") {
    const std::vector<sigma_scores> weights = {scores_of(std::vector<double>(64, 1.0), std::vector<double>(64, -1.0)),
                                               scores_of(std::vector<double>(64, 0.9), std::vector<double>(64, -1.0))};
    const std::vector<weight_shape> shapes = {{64, 64}, {64, 64}};
    const auto plan = joint_ranks(weights, shapes, 8192);
    CHECK(plan.ranks == std::vector<lowrank::index>{64, 64});
    CHECK(plan.parameters == 8192);
    CHECK(plan.predicted_change == 0);
}

TEST_CASE("no plan within the budget predicts less than the hull's, for random scores") {
    const philox rng(3);
    std::uint64_t at = 0;
    for (int trial = 0; trial < 20; ++trial) {
        std::vector<sigma_scores> weights;
        const std::vector<weight_shape> shapes = {{3, 5}, {4, 3}};
        for (int w = 0; w < 2; ++w) {
            std::vector<double> gradient;
            for (int i = 0; i < 3; ++i) {
                gradient.push_back(rng.uniform<double>(at++) - 0.6);
            }
            weights.push_back(scores_of({3, 2, 1}, gradient));
        }
        for (const lowrank::index budget : {0, 8, 15, 22, 30, 45}) {
            const auto plan = joint_ranks(weights, shapes, budget);
            CHECK(plan.parameters <= budget);
            double sum = 0;
            for (std::size_t w = 0; w < 2; ++w) {
                sum += weights[w].loss_change(plan.ranks[w], true);
            }
            CHECK(plan.predicted_change == doctest::Approx(sum));
            // With the parameters it uses, nothing is better.
            for (lowrank::index a = 0; a <= 3; ++a) {
                for (lowrank::index b = 0; b <= 3; ++b) {
                    if (stored_numbers(a, 3, 5) + stored_numbers(b, 4, 3) <= plan.parameters) {
                        CHECK(weights[0].loss_change(a, true) + weights[1].loss_change(b, true) >=
                              plan.predicted_change - 1e-12);
                    }
                }
            }
        }
    }
}

TEST_CASE("a joint plan does not know the unit of the loss") {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        const philox rng(seed, 9);
        std::uint64_t at = 0;
        for (const auto& shape : {weight_shape{1, 1}, weight_shape{2, 7}, weight_shape{9, 4}, weight_shape{64, 33}}) {
            const auto n = std::min(shape.rows, shape.cols);
            std::vector<double> sigma, gradient;
            for (lowrank::index i = 0; i < n; ++i) {
                sigma.push_back(static_cast<double>(n - i));
                gradient.push_back(rng.uniform<double>(at++) - 0.7);
            }
            const std::vector<weight_shape> shapes = {shape, shape};
            const lowrank::index all = 2 * shape.rows * shape.cols;
            for (const int exponent : {-400, -126, -40, 126, 400}) {
                std::vector<double> scaled = gradient;
                for (double& g : scaled) {
                    g = std::ldexp(g, exponent);
                }
                for (const lowrank::index budget : {all / 4, all / 2, all}) {
                    CAPTURE(exponent);
                    CAPTURE(budget);
                    const std::vector<sigma_scores> one = {scores_of(sigma, gradient), scores_of(sigma, gradient)};
                    const std::vector<sigma_scores> other = {scores_of(sigma, scaled), scores_of(sigma, scaled)};
                    CHECK(joint_ranks(one, shapes, budget, false).ranks ==
                          joint_ranks(other, shapes, budget, false).ranks);
                }
            }
        }
    }
}

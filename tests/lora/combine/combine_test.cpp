// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/combine/combine.hpp>

#include <array>
#include <cmath>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// Two small tasks with answers worked out by the formulas of PEFT's merge_utils.
struct two_tasks {
    std::vector<matrix<double>> tasks{matrix<double>{{1, -2, 3}, {.5, -.1, .2}},
                                      matrix<double>{{-1.5, -1, 1}, {.4, .3, -.25}}};
    std::array<double, 2> weights{.7, .3};

    [[nodiscard]] matrix<double> by(const combine_options& o) const {
        return combine_entries<double>(tasks, weights, o);
    }
};

}  // namespace

TEST_CASE("the rules on two small tasks") {
    const two_tasks t;
    const auto same = [](const matrix<double>& got, const matrix<double>& want) {
        return max_abs_diff(got, want) < 1e-15;
    };
    CHECK(same(t.by({}), matrix<double>{{.25, -1.7, 2.4}, {.47, .02, .065}}));
    CHECK(same(t.by({.rule = combine_rule::ties, .density = .5}), matrix<double>{{-.45, -.85, 1.2}, {0, 0, 0}}));
    CHECK(same(t.by({.rule = combine_rule::ties, .density = .5, .election = sign_election::frequency}),
               matrix<double>{{.7, -.85, 1.2}, {0, 0, 0}}));
    CHECK(same(t.by({.rule = combine_rule::ties}), matrix<double>{{-.45, -.85, 1.2}, {.235, .09, -.075}}));
    CHECK(same(t.by({.rule = combine_rule::magnitude_prune, .density = .5}),
               matrix<double>{{.25, -1.7, 2.4}, {0, 0, 0}}));
    // mergekit: weighted votes, divided by the weights that agree.
    CHECK(
        same(t.by({.rule = combine_rule::ties, .election = sign_election::weighted, .divisor = ties_divisor::weights}),
             matrix<double>{{1, -1.7, 2.4}, {.47, .3, .2}}));
    CHECK(same(t.by({.rule = combine_rule::ties, .divisor = ties_divisor::one}),
               matrix<double>{{-.45, -1.7, 2.4}, {.47, .09, -.075}}));
}

TEST_CASE("DARE keeps the share it is told, is unbiased, and is the same again") {
    const std::vector<matrix<double>> tasks{matrix<double>::Constant(60, 50, 2.0)};
    const std::array<double, 1> weights{1};
    const combine_options o{.rule = combine_rule::dare_linear, .density = 0.25, .seed = 3};
    const auto once = combine_entries<double>(tasks, weights, o);
    const double kept = double((once.array() != 0).count()) / 3000;
    CHECK(kept == doctest::Approx(0.25).epsilon(0.1));
    CHECK(once.mean() == doctest::Approx(2).epsilon(0.1));
    CHECK(once.maxCoeff() == 8);
    CHECK(same_bits(once, combine_entries<double>(tasks, weights, o)));
    combine_options other = o;
    other.seed = 4;
    CHECK_FALSE(same_bits(once, combine_entries<double>(tasks, weights, other)));
    other.density = 1;
    CHECK(same_bits(combine_entries<double>(tasks, weights, other), tasks[0]));
    other.density = 0;
    CHECK_THROWS_AS((void)combine_entries<double>(tasks, weights, other), contract_violation);
}

TEST_CASE_TEMPLATE("the exact modes equal sums and rules of the dense changes", S, float, double) {
    std::vector<low_rank<S>> changes;
    std::vector<matrix<S>> dense;
    for (int i = 0; i < 3; ++i) {
        changes.push_back(random_adapter<S>(14, 10, {.r = 2 + i, .lora_alpha = 3, .seed = std::uint64_t(i)}).delta());
        dense.push_back(changes.back().dense());
    }
    const std::vector<double> weights{.5, -1.25, 2};
    const matrix<double> want = .5 * dense[0].template cast<double>() - 1.25 * dense[1].template cast<double>() +
                                2 * dense[2].template cast<double>();
    const auto sum = combine_sum<S>(changes, weights, {.rule = rank_rule::relative_error, .value = 10 * epsilon<S>});
    REQUIRE(sum);
    CHECK(sum.adapter.rank() == 9);
    CHECK((sum.adapter.delta().dense().template cast<double>() - want).norm() < 100 * epsilon<S> * want.norm());
    const auto small = combine_sum<S>(changes, weights, fixed_rank(4));
    CHECK(small.error ==
          doctest::Approx((small.adapter.delta().dense().template cast<double>() - want).norm()).epsilon(1e-4));

    for (const auto rule : {combine_rule::linear, combine_rule::ties, combine_rule::dare_linear,
                            combine_rule::dare_ties, combine_rule::magnitude_prune}) {
        const combine_options o{.rule = rule, .density = .4, .seed = 2};
        CHECK(same_bits(combine<S>(changes, weights, o).value(), combine_entries<S>(dense, weights, o)));
    }
    changes[1].left(0, 0) = S(std::nan(""));
    CHECK(combine<S>(changes, weights, {}).error().code == errc::non_finite);
    CHECK(combine_sum<S>(changes, weights, fixed_rank(2)).why.code == errc::non_finite);
}

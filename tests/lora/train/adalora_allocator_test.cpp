// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/train/adalora_allocator.hpp>

#include <algorithm>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

using adapters_t = std::vector<adalora_adapter<double>>;

adalora_adapter<double> random_adalora(lowrank::index out, lowrank::index in, lowrank::index r, std::uint64_t stream) {
    auto a = make_adalora<double>(out, in, {.init_r = r, .seed = 3, .stream = stream});
    a.lora_A = random_matrix<double>(r, in, 3 * stream);
    a.lora_B = random_matrix<double>(out, r, 3 * stream + 1);
    a.lora_E = random_matrix<double>(r, 1, 3 * stream + 2);
    return a;
}

adapters_t random_adaloras(std::uint64_t stream) {
    return {random_adalora(5, 7, 4, stream), random_adalora(6, 5, 3, stream + 1), random_adalora(3, 6, 5, stream + 2)};
}

}  // namespace

TEST_CASE("the budget falls by a cube and is enforced every deltaT steps") {
    const adalora_schedule s{.target_r = 8, .tinit = 20, .tfinal = 50, .deltaT = 10, .total_step = 200};
    const auto check = [&](std::int64_t step, lowrank::index budget, bool mask) {
        CHECK(adalora_budget_at(step, 120, 80, s).triplets == budget);
        CHECK(adalora_budget_at(step, 120, 80, s).mask == mask);
    };
    check(0, 120, false);
    check(20, 120, false);
    check(21, 119, false);
    check(30, 111, true);
    check(40, 104, true);
    check(75, 87, false);
    check(100, 82, true);
    check(130, 80, true);
    check(151, 80, true);
}

TEST_CASE("every mask leaves the budget's triplets, those of the highest scores; the final pattern stays") {
    auto adapters = random_adaloras(1);
    auto state = make_adalora_allocator(
        adapters, {.target_r = 2, .tinit = 2, .tfinal = 4, .deltaT = 2, .total_step = 16, .beta1 = 0.8, .beta2 = 0.7});
    CHECK(state.initial_budget == 12);
    CHECK(state.target_budget == 6);
    std::vector<std::vector<bool>> last;
    for (std::int64_t step = 0; step < 16; ++step) {
        const auto gradients = random_adaloras(100 + 10 * static_cast<std::uint64_t>(step));
        for (auto& a : adapters) {
            a.lora_E.array() += 0.5;  // what an optimizer might do to masked entries
        }
        const auto before = adapters;
        const auto done = adalora_allocate(state, step, adapters, gradients);
        const bool want_mask = step == 12 || (step > 2 && step < 12 && step % 2 == 0);
        CHECK(done.masked == want_mask);
        lowrank::index kept = 0;
        double least_kept = 1e300;
        double most_dropped = -1e300;
        for (std::size_t k = 0; k < 3; ++k) {
            const auto score = adalora_scores(state.importance[k]);
            for (lowrank::index i = 0; i < score.size(); ++i) {
                const bool keep = state.pattern[k][static_cast<std::size_t>(i)];
                const bool masked_now = done.masked || step > 12;
                CHECK(adapters[k].lora_E(i) == (keep || !masked_now ? before[k].lora_E(i) : 0.0));
                kept += keep ? 1 : 0;
                (keep ? least_kept : most_dropped) =
                    keep ? std::min(least_kept, score(i)) : std::max(most_dropped, score(i));
            }
        }
        if (done.masked) {
            CHECK(kept == done.budget);
            if (kept < 12) {
                CHECK(most_dropped == done.threshold);
                CHECK(least_kept > most_dropped);
            }
            last = state.pattern;
        }
        if (step > 12) {
            CHECK(state.pattern == last);
        }
    }
    CHECK(std::count(last[0].begin(), last[0].end(), true) + std::count(last[1].begin(), last[1].end(), true) +
              std::count(last[2].begin(), last[2].end(), true) ==
          6);
    for (std::size_t k = 0; k < 3; ++k) {
        const auto small = keep_triplets(adapters[k], last[k]);
        CHECK(small.lora_E.size() == std::count(last[k].begin(), last[k].end(), true));
        CHECK(max_abs_diff(small.delta().dense(), adapters[k].delta().dense()) < 1e-12);
    }
}

TEST_CASE("importance follows its two running means; a triplet's score adds means over rows and columns") {
    const auto a = random_adalora(5, 7, 4, 1);
    const auto g = random_adalora(5, 7, 4, 2);
    const adapters_t one{a};
    auto state = make_adalora_allocator(one, {.target_r = 1, .total_step = 10});
    adalora_observe(state.importance[0], a, g, 0.85, 0.6);
    adalora_observe(state.importance[0], a, g, 0.85, 0.6);
    const double i = std::abs(a.lora_A(2, 3) * g.lora_A(2, 3));
    const double s1 = 0.15 * i;
    const double s2 = 0.85 * s1 + 0.15 * i;
    const double u2 = 0.6 * (0.4 * std::abs(i - s1)) + 0.4 * std::abs(i - s2);
    CHECK(state.importance[0].sensitivity.lora_A(2, 3) == doctest::Approx(s2));
    CHECK(state.importance[0].uncertainty.lora_A(2, 3) == doctest::Approx(u2));
    const auto& imp = state.importance[0];
    double want = imp.sensitivity.lora_E(1) * imp.uncertainty.lora_E(1);
    want += imp.sensitivity.lora_A.row(1).dot(imp.uncertainty.lora_A.row(1)) / 7;
    want += imp.sensitivity.lora_B.col(1).dot(imp.uncertainty.lora_B.col(1)) / 5;
    CHECK(adalora_scores(imp)(1) == doctest::Approx(want));
}

TEST_CASE("the regulariser's gradient agrees with finite differences; wrong settings are refused") {
    auto adapters = random_adaloras(5);
    adapters_t g;
    for (const auto& a : adapters) {
        g.push_back({.lora_A = matrix<double>::Zero(a.lora_A.rows(), a.lora_A.cols()),
                     .lora_B = matrix<double>::Zero(a.lora_B.rows(), a.lora_B.cols()),
                     .lora_E = vector<double>::Zero(a.lora_E.size())});
    }
    const double value = adalora_orthogonality(adapters, 0.5, &g);
    CHECK(value == adalora_orthogonality(adapters));
    const auto loss = [&] { return 0.5 * adalora_orthogonality(adapters); };
    CHECK(relative_diff(g[1].lora_A, numeric_gradient(adapters[1].lora_A, loss)) < 1e-7);
    CHECK(relative_diff(g[2].lora_B, numeric_gradient(adapters[2].lora_B, loss)) < 1e-7);

    const adapters_t orthogonal{{.lora_A = matrix<double>::Identity(2, 3),
                                 .lora_B = matrix<double>::Identity(4, 2),
                                 .lora_E = vector<double>::Ones(2)}};
    CHECK(adalora_orthogonality(orthogonal) == 0);
    CHECK_THROWS_AS((void)make_adalora_allocator(adapters, {.target_r = 2}), contract_violation);
    CHECK_THROWS_AS((void)make_adalora_allocator(adapters, {.target_r = 5, .total_step = 9}), contract_violation);
    auto state = make_adalora_allocator(adapters, {.target_r = 2, .total_step = 9});
    CHECK_THROWS_AS((void)adalora_allocate(state, 0, adapters, {}), contract_violation);
    CHECK(detail::all_zero(make_adalora<float>(3, 4).delta().dense()));
}

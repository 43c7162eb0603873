// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/train/adamw.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// The textbook recursion for one scalar, in long double.
struct plain_adamw {
    long double p, m = 0, v = 0;
    int t = 0;
    void step(long double g, long double lr, long double wd, long double b1, long double b2, long double eps) {
        ++t;
        p *= 1 - lr * wd;
        m = b1 * m + (1 - b1) * g;
        v = b2 * v + (1 - b2) * g * g;
        p -= lr * (m / (1 - std::pow(b1, static_cast<long double>(t)))) /
             (std::sqrt(v / (1 - std::pow(b2, static_cast<long double>(t)))) + eps);
    }
};

}  // namespace

TEST_CASE_TEMPLATE("groups follow the recursion with their own rates", S, float, double) {
    matrix<S> a = random_matrix<S>(3, 4, 1);
    matrix<S> b = random_matrix<S>(2, 2, 2);
    matrix<S> ga(3, 4);
    matrix<S> gb(2, 2);
    std::vector<trainable<S>> list{make_trainable(a, ga), make_trainable(b, gb, 1)};
    const adamw_options options{
        .groups = {{.learning_rate = 1e-2, .weight_decay = 0.1}, {.learning_rate = 3e-2, .weight_decay = 0}}};
    auto state = make_adamw_state(list);
    std::vector<plain_adamw> plain;
    for (const auto& t : list) {
        for (const S p : t.value) {
            plain.push_back({static_cast<long double>(p)});
        }
    }
    for (std::uint64_t step = 0; step < 40; ++step) {
        ga.array() = random_matrix<S>(3, 4, 10 + 2 * step).array();
        gb.array() = random_matrix<S>(2, 2, 11 + 2 * step).array();
        for (std::size_t i = 0; i < 16; ++i) {
            const auto& group = options.groups[i < 12 ? 0 : 1];
            plain[i].step(i < 12 ? ga.data()[i] : gb.data()[i - 12], group.learning_rate, group.weight_decay, 0.9L,
                          0.999L, 1e-8L);
        }
        adamw_step(list, state, options);
    }
    CHECK(state.steps == 40);
    for (std::size_t i = 0; i < 16; ++i) {
        const double got = i < 12 ? a.data()[i] : b.data()[i - 12];
        CHECK(std::abs(got - static_cast<double>(plain[i].p)) < 1000 * epsilon<S>);
    }
}

TEST_CASE("coupled decay is Adam: it enters the gradient") {
    matrix<double> p = random_matrix<double>(1, 1, 1);
    matrix<double> g = random_matrix<double>(1, 1, 2);
    plain_adamw plain{p(0, 0)};
    std::vector<trainable<double>> list{make_trainable(p, g)};
    auto state = make_adamw_state(list);
    for (int step = 0; step < 20; ++step) {
        plain.step(g(0, 0) + 0.3L * plain.p, 1e-2L, 0, 0.9L, 0.999L, 1e-8L);
        adamw_step(list, state, {.groups = {{.learning_rate = 1e-2, .weight_decay = 0.3}}, .decoupled = false});
    }
    CHECK(p(0, 0) == doctest::Approx(static_cast<double>(plain.p)).epsilon(1e-13));
}

TEST_CASE("training resumed from a saved state continues bit for bit, and no step allocates") {
    const auto run = [](bool interrupted) {
        auto adapter = random_adapter<float>(6, 5, {.r = 2, .seed = 1});
        auto gradient = zero_gradient(adapter);
        std::vector<trainable<float>> list;
        append(list, adapter, gradient, 0, 1);
        const adamw_options options{.groups = {{.learning_rate = 1e-2}, {.learning_rate = 5e-2}}};
        auto state = make_adamw_state(list);
        std::uint64_t allocated = 0;
        for (std::uint64_t step = 0; step < 20; ++step) {
            gradient.lora_A.array() = random_matrix<float>(2, 5, step).array();
            gradient.lora_B.array() = random_matrix<float>(6, 2, 100 + step).array();
            if (interrupted && step == 11) {
                const adamw_state<float> saved = state;
                state = make_adamw_state(list);
                state = saved;
            }
            const auto before = allocation_count();
            adamw_step(list, state, options);
            allocated += allocation_count() - before;
        }
        CHECK(allocated == 0);
        return adapter;
    };
    const auto whole = run(false);
    const auto resumed = run(true);
    CHECK(same_bits(whole.lora_A, resumed.lora_A));
    CHECK(same_bits(whole.lora_B, resumed.lora_B));
}

TEST_CASE("a state of another list, a missing group and a wrong gradient are contract violations") {
    matrix<double> p(2, 2);
    matrix<double> g(2, 2);
    std::vector<trainable<double>> list{make_trainable(p, g)};
    auto state = make_adamw_state(list);
    matrix<double> small(1, 2);
    CHECK_THROWS_AS((void)make_trainable(p, small), contract_violation);
    list[0].group = 1;
    CHECK_THROWS_AS(adamw_step(list, state), contract_violation);
    list[0].group = 0;
    list[0].gradient = list[0].gradient.subspan(1);
    CHECK_THROWS_AS(adamw_step(list, state), contract_violation);
    list = {make_trainable(small, small)};
    CHECK_THROWS_AS(adamw_step(list, state), contract_violation);
    list.clear();
    CHECK_THROWS_AS(adamw_step(list, state), contract_violation);
    CHECK(state.steps == 0);
}

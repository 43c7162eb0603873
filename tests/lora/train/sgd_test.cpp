// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/train/sgd.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// The textbook recursion for one scalar.
struct plain_sgd {
    long double p, buffer = 0;
    bool first = true;
    void step(long double g, long double lr, long double wd, const sgd_options& o) {
        g += wd * p;
        const auto momentum = static_cast<long double>(o.momentum);
        buffer = first ? g : momentum * buffer + (1 - static_cast<long double>(o.dampening)) * g;
        first = false;
        p -= lr * (o.nesterov ? g + momentum * buffer : buffer);
    }
};

}  // namespace

TEST_CASE_TEMPLATE("momentum, dampening, Nesterov and decay follow the recursion in their groups", S, float, double) {
    for (sgd_options options :
         {sgd_options{}, sgd_options{.momentum = 0.9}, sgd_options{.momentum = 0.8, .dampening = 0.3},
          sgd_options{.momentum = 0.9, .nesterov = true}}) {
        options.groups = {{.learning_rate = 1e-2, .weight_decay = 0.1}, {.learning_rate = 3e-2, .weight_decay = 0}};
        matrix<S> a = random_matrix<S>(3, 4, 1);
        matrix<S> b = random_matrix<S>(2, 2, 2);
        matrix<S> ga(3, 4);
        matrix<S> gb(2, 2);
        const std::vector<trainable<S>> list{make_trainable(a, ga), make_trainable(b, gb, 1)};
        auto state = make_sgd_state(list, options);
        CHECK(state.momentum.size() == (options.momentum == 0 ? 0U : 2U));
        std::vector<plain_sgd> plain;
        for (const auto& t : list) {
            for (const S p : t.value) {
                plain.push_back({static_cast<long double>(p)});
            }
        }
        for (std::uint64_t step = 0; step < 30; ++step) {
            ga.array() = random_matrix<S>(3, 4, 10 + 2 * step).array();
            gb.array() = random_matrix<S>(2, 2, 11 + 2 * step).array();
            for (std::size_t i = 0; i < 16; ++i) {
                const auto& group = options.groups[i < 12 ? 0 : 1];
                plain[i].step(i < 12 ? ga.data()[i] : gb.data()[i - 12], group.learning_rate, group.weight_decay,
                              options);
            }
            const auto before = allocation_count();
            sgd_step(list, state, options);
            CHECK(allocation_count() == before);
        }
        CHECK(state.steps == 30);
        for (std::size_t i = 0; i < 16; ++i) {
            const double got = i < 12 ? a.data()[i] : b.data()[i - 12];
            CHECK(std::abs(got - static_cast<double>(plain[i].p)) < 1000 * epsilon<S>);
        }
    }
}

TEST_CASE("a state of another list and options that contradict each other are contract violations") {
    matrix<double> p = random_matrix<double>(2, 2, 1);
    matrix<double> g = random_matrix<double>(2, 2, 2);
    const std::vector<trainable<double>> list{make_trainable(p, g)};
    auto state = make_sgd_state(list);
    CHECK_THROWS_AS(sgd_step(list, state, {.momentum = 0.5}), contract_violation);  // the state has no buffers
    CHECK_THROWS_AS(sgd_step(list, state, {.nesterov = true}), contract_violation);
    CHECK_THROWS_AS(sgd_step(list, state, {.momentum = 1}), contract_violation);
    state = make_sgd_state(list, {.momentum = 0.5});
    CHECK_THROWS_AS(sgd_step(list, state), contract_violation);
    matrix<double> other = random_matrix<double>(1, 2, 3);
    const std::vector<trainable<double>> shorter{make_trainable(other, other)};
    CHECK_THROWS_AS(sgd_step(shorter, state, {.momentum = 0.5}), contract_violation);
    CHECK(state.steps == 0);
}

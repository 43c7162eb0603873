// SPDX-License-Identifier: MIT
#include <lowrank/lora/train/trainer.hpp>

#include <limits>
#include <set>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/dora.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// Learns y = (W + change) x from two micro-batches a step; returns the mean square error before the step.
template <class S>
double train_once(trainer<S>& t, const row_matrix<S>& w, std::uint64_t step) {
    static const matrix<S> target = w + random_matrix<S>(w.rows(), 2, 7, S(0.3)) * random_matrix<S>(2, w.cols(), 8);
    double loss = 0;
    workspace ws;
    for (std::uint64_t micro = 0; micro < 2; ++micro) {
        const auto x = random_matrix<S>(w.cols(), 12, 100 + 2 * step + micro);
        const any_adapter<S>& a = t.adapter(0);
        matrix<S> y = matrix<S>::Zero(w.rows(), 12);
        a.add_product(as_operator(w), S(1), x, y, ws);
        if (a.additive()) {
            as_operator(w).add_product(S(1), x, y, ws);
        }
        const matrix<S> error = y - target * x;
        loss += static_cast<double>(error.squaredNorm()) / static_cast<double>(2 * error.size());
        auto g = a.zero_gradient();
        const matrix<S> dy = error / static_cast<S>(error.size());
        a.backward(as_operator(w), S(1), x, dy, g, nullptr, ws);
        t.accumulate(0, g);
    }
    REQUIRE(t.step().has_value());
    return loss;
}

template <class S>
std::vector<S> values_of(const any_adapter<S>& a) {
    std::vector<S> all;
    any_adapter<S> copy = a;
    for (const auto& p : copy.parameters()) {
        all.insert(all.end(), p.values.begin(), p.values.end());
    }
    return all;
}

}  // namespace

TEST_CASE("every optimizer and every variant of it learns") {
    const row_matrix<double> w = random_weight<double>(9, 6, 1, 0.4);
    for (const trainer_options& o :
         {trainer_options{.learning_rate = 2e-2}, trainer_options{.learning_rate = 5e-3, .lora_plus_ratio = 8},
          trainer_options{.optimizer = optimizer_kind::sgd, .learning_rate = 1, .momentum = 0.5, .freeze_lora_A = true},
          trainer_options{.learning_rate = 2e-2, .riemannian_delta = 1e-2},
          trainer_options{.optimizer = optimizer_kind::sgd, .learning_rate = 0.3, .momentum = 0.8},
          trainer_options{.optimizer = optimizer_kind::sgd,
          .learning_rate = 0.5,
          .momentum = 0.8,
          .nesterov = true,
          .riemannian_delta = 1e-1}}) {
        trainer<double> t(o);
        t.add("layer", make_lora<double>(9, 6, {.r = 6, .lora_alpha = 6}), as_operator(w));
        CAPTURE(t.options().learning_rate);
        CAPTURE(t.options().riemannian_delta);
        CAPTURE(t.options().freeze_lora_A);
        const double first = train_once(t, w, 0);
        double last = first;
        for (std::uint64_t step = 1; step < 150; ++step) {
            last = train_once(t, w, step);
        }
        CHECK(last < 0.3 * first);
        CHECK(t.steps() == 150);
    }
}

TEST_CASE("groups: LoRA+ scales the rate of B, LoRA-FA leaves A alone, vectors do not decay") {
    const row_matrix<double> w = random_weight<double>(9, 6, 1, 0.4);
    const auto start = make_dora(w, {.r = 2, .seed = 3});
    const auto after_one = [&](const trainer_options& o) {
        trainer<double> t(o);
        t.add("layer", start, as_operator(w));
        train_once(t, w, 0);
        return *t.adapter(0).get<dora_adapter<double>>();
    };
    // The first step of Adam is the rate times the sign of the gradient.
    const auto plus = after_one({.learning_rate = 1e-3, .lora_plus_ratio = 16});
    CHECK(plus.lora.lora_B.cwiseAbs().maxCoeff() == doctest::Approx(16e-3).epsilon(1e-3));
    CHECK((plus.magnitude - start.magnitude).cwiseAbs().maxCoeff() == doctest::Approx(16e-3).epsilon(1e-3));
    const auto frozen = after_one({.learning_rate = 1e-3, .freeze_lora_A = true});
    CHECK(same_bits(frozen.lora.lora_A, start.lora.lora_A));
    CHECK(frozen.lora.lora_B.cwiseAbs().maxCoeff() > 0);
    // A gradient of zero leaves decay alone to act: B is zero, so A has none.
    const auto decayed = after_one({.learning_rate = 1e-3, .weight_decay = 0.5});
    CHECK(relative_diff(decayed.lora.lora_A, matrix<double>(start.lora.lora_A * (1 - 0.5e-3))) < 1e-12);
    const auto spared = after_one({.learning_rate = 1e-3});
    CHECK(same_bits(decayed.magnitude, spared.magnitude));
    CHECK_FALSE(same_bits(after_one({.learning_rate = 1e-3, .weight_decay = 0.5, .decay_vectors = true}).magnitude,
                          spared.magnitude));
}

TEST_CASE_TEMPLATE("a run resumed from a saved state continues bit for bit", S, float, double) {
    const row_matrix<S> w = random_weight<S>(9, 6, 1, 0.4);
    for (const auto optimizer : {optimizer_kind::adamw, optimizer_kind::sgd}) {
        const trainer_options o{.optimizer = optimizer,
                                .learning_rate = 1e-2,
                                .schedule = {.kind = decay::cosine, .steps = 12, .warmup_steps = 3},
                                .weight_decay = 0.01,
                                .momentum = optimizer == optimizer_kind::sgd ? 0.9 : 0.0,
                                .clip_norm = 0.5};
        const auto fresh = [&] {
            trainer<S> t(o);
            t.add("layer", make_dora(w, {.r = 2, .seed = 3}), as_operator(w));
            return t;
        };
        trainer<S> whole = fresh();
        trainer_state<S> saved;
        for (std::uint64_t step = 0; step < 12; ++step) {
            if (step == 5) {
                saved = whole.state();
            }
            train_once(whole, w, step);
        }
        CHECK(saved.facts.at("steps") == "5");
        CHECK(saved.tensors.count("layer.lora_magnitude_vector") == 1);
        trainer<S> resumed = fresh();
        REQUIRE(resumed.restore(saved));
        CHECK(resumed.steps() == 5);
        for (std::uint64_t step = 5; step < 12; ++step) {
            train_once(resumed, w, step);
        }
        CHECK(values_of(resumed.adapter(0)) == values_of(whole.adapter(0)));
    }
}

TEST_CASE("what cannot be restored or stepped leaves the trainer as it was") {
    const row_matrix<double> w = random_weight<double>(9, 6, 1, 0.4);
    trainer<double> t({.learning_rate = 1e-2});
    t.add("layer", make_lora<double>(9, 6, {.r = 2}), as_operator(w));
    CHECK_THROWS_AS(t.add("layer", make_lora<double>(9, 6, {.r = 2}), as_operator(w)), contract_violation);
    train_once(t, w, 0);
    CHECK_THROWS_AS(t.add("late", make_lora<double>(9, 6, {.r = 2}), as_operator(w)), contract_violation);
    const auto before = values_of(t.adapter(0));

    auto saved = t.state();
    saved.tensors.erase("layer.lora_B.weight.first_moment");
    CHECK(t.restore(saved).code == errc::mismatch);
    saved = t.state();
    saved.tensors["other"] = vector<double>::Zero(1);
    CHECK(t.restore(saved).code == errc::mismatch);
    saved = t.state();
    saved.facts["steps"] = "-1";
    CHECK(t.restore(saved).code == errc::mismatch);
    CHECK(values_of(t.adapter(0)) == before);

    auto g = t.adapter(0).zero_gradient();
    matrix<double> x = random_matrix<double>(6, 2, 1);
    x(0, 0) = std::numeric_limits<double>::infinity();
    workspace ws;
    t.adapter(0).backward(as_operator(w), 1, x, random_matrix<double>(9, 2, 2), g, nullptr, ws);
    t.accumulate(0, g);
    const auto done = t.step();
    REQUIRE_FALSE(done.has_value());
    CHECK(done.error().code == errc::non_finite);
    CHECK(values_of(t.adapter(0)) == before);
    CHECK(t.steps() == 1);
    train_once(t, w, 1);
    CHECK(values_of(t.adapter(0)) != before);
}

// SPDX-License-Identifier: MIT
#include <lowrank/lora/train/detail/adalora_steps.hpp>

#include <algorithm>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/train/trainer.hpp>

#include "support.hpp"

using namespace lowrank;

namespace {

/// Two layers whose targets are of rank 1 and 3; a run of the trainer on them, from a state if one is given.
struct adalora_run {
    static constexpr lowrank::index out = 9, in = 11;
    static constexpr int steps = 40;
    row_matrix<double> base[2], target[2];
    adalora_schedule schedule = {.target_r = 2, .tinit = 4, .tfinal = 6, .deltaT = 3, .total_step = steps};
    trainer_options how = {.learning_rate = 3e-2, .clip_norm = 1, .adalora = schedule, .orth_reg_weight = 0.1};

    adalora_run() {
        for (std::size_t k = 0; k < 2; ++k) {
            matrix<double> left(out, k == 0 ? 1 : 3), right(left.cols(), in);
            base[k] = row_matrix<double>(out, in);
            fill_normal(base[k], 0.3, philox(1, k));
            fill_normal(left, 1.0, philox(2, k));
            fill_normal(right, 1.0, philox(3, k));
            target[k] = base[k] + left * right;
        }
    }
    [[nodiscard]] adalora_adapter<double> fresh(std::size_t k) const {
        return make_adalora<double>(out, in, {.init_r = 4, .lora_alpha = 8, .seed = 5, .stream = k});
    }
    /// The gradient of an adapter's mean square error, at some step.
    [[nodiscard]] adalora_adapter<double> gradient(std::size_t k, const adalora_adapter<double>& a, int step) const {
        matrix<double> x(in, 16);
        fill_normal(x, 1.0, philox(7, static_cast<std::uint64_t>(2 * step) + k));
        const auto change = a.delta();
        const matrix<double> error = (base[k] - target[k]) * x + change.dense() * x;
        auto g = zero_gradient(change);
        workspace ws;
        delta_backward(change, x, matrix<double>(error / 8.0), g, nullptr, ws);
        return a.pull_back(g);
    }
    void add_to(trainer<double>& t) const {
        t.add("a", fresh(0), as_operator(base[0]));
        t.add("b", fresh(1), as_operator(base[1]));
    }
    void train(trainer<double>& t, int from, int to) const {
        workspace ws;
        for (int step = from; step < to; ++step) {
            for (std::size_t k = 0; k < 2; ++k) {
                matrix<double> x(in, 16);
                fill_normal(x, 1.0, philox(7, static_cast<std::uint64_t>(2 * step) + k));
                const auto number = static_cast<lowrank::index>(k);
                matrix<double> error = (base[k] - target[k]) * x;
                t.adapter(number).add_product(as_operator(base[k]), 1.0, x, error, ws);
                auto g = t.adapter(number).zero_gradient();
                t.adapter(number).backward(as_operator(base[k]), 1.0, x, matrix<double>(error / 8.0), g, nullptr, ws);
                t.accumulate(number, g);
            }
            REQUIRE(t.step());
        }
    }
};

}  // namespace

TEST_CASE("a trainer with a schedule allocates ranks as the allocator by itself does") {
    const adalora_run run;
    trainer<double> t(run.how);
    run.add_to(t);
    run.train(t, 0, adalora_run::steps);

    std::vector<adalora_adapter<double>> adapters = {run.fresh(0), run.fresh(1)};
    auto state = make_adalora_allocator(adapters, run.schedule);
    adamw_state<double> moments;
    for (int step = 0; step < adalora_run::steps; ++step) {
        std::vector<adalora_adapter<double>> g = {run.gradient(0, adapters[0], step),
                                                  run.gradient(1, adapters[1], step)};
        adalora_orthogonality(adapters, 0.1, &g);
        std::vector<trainable<double>> list;
        for (std::size_t k = 0; k < 2; ++k) {
            const auto list_in = [&](auto& value, auto& gradient) {
                list.push_back({.value = detail::entries(value), .gradient = detail::entries(gradient)});
            };
            list_in(adapters[k].lora_A, g[k].lora_A);
            list_in(adapters[k].lora_B, g[k].lora_B);
            list_in(adapters[k].lora_E, g[k].lora_E);
        }
        if (step == 0) {
            moments = make_adamw_state(list);
        }
        (void)clip_gradients(list, 1.0);
        adamw_step(list, moments, {.groups = {{.learning_rate = 3e-2, .weight_decay = 0}}});
        adalora_allocate(state, step, adapters, g);
    }
    std::ptrdiff_t kept = 0;
    for (lowrank::index k = 0; k < 2; ++k) {
        const auto& mine = *t.adapter(k).get<adalora_adapter<double>>();
        const auto at = static_cast<std::size_t>(k);
        CHECK(t.kept_triplets(k) == state.pattern[at]);
        CHECK((mine.lora_A - adapters[at].lora_A).cwiseAbs().maxCoeff() < 1e-9);
        CHECK((mine.lora_E - adapters[at].lora_E).cwiseAbs().maxCoeff() < 1e-9);
        kept += std::count(t.kept_triplets(k).begin(), t.kept_triplets(k).end(), true);
        const auto small = keep_triplets(mine, t.kept_triplets(k));
        CHECK((small.delta().dense() - mine.delta().dense()).cwiseAbs().maxCoeff() < 1e-12);
    }
    CHECK(kept == 4);  // target_r times two adapters
}

TEST_CASE("a resumed run allocates as if it had not stopped") {
    const adalora_run run;
    trainer<double> whole(run.how);
    run.add_to(whole);
    run.train(whole, 0, 22);
    const auto saved = whole.state();
    run.train(whole, 22, adalora_run::steps);
    trainer<double> again(run.how);
    run.add_to(again);
    REQUIRE(again.restore(saved));
    run.train(again, 22, adalora_run::steps);
    for (lowrank::index k = 0; k < 2; ++k) {
        CHECK(again.kept_triplets(k) == whole.kept_triplets(k));
        CHECK(again.adapter(k).get<adalora_adapter<double>>()->lora_E ==
              whole.adapter(k).get<adalora_adapter<double>>()->lora_E);
    }
}

TEST_CASE("a schedule is for AdaLoRA adapters alone") {
    const adalora_run run;
    trainer<double> t(run.how);
    t.add("a", make_lora<double>(run.out, run.in), as_operator(run.base[0]));
    CHECK_THROWS_AS((void)t.step(), contract_violation);
}

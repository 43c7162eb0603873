// SPDX-License-Identifier: MIT
// Gradients against central differences in double: every weight, every adapter, every way of asking for them.

#include <llama/backward.hpp>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tiny_models.hpp"

namespace {

using lowrank::matrix;

constexpr double step = 1e-5;

double mean_nll(const llama::model<double>& m, const llama::batch& b, const llama::dropout_step* dropout = nullptr) {
    lowrank::workspace ws;
    return llama::score(m, b, llama::forward<double>(m, b, ws, {.dropout = dropout}), ws).mean_nll();
}

/// (f(x + h) - f(x - h)) / 2h in one entry.
template <class F>
double slope(double& x, F&& f) {
    const double before = x;
    x = before + step;
    const double up = f();
    x = before - step;
    const double down = f();
    x = before;
    return (up - down) / (2 * step);
}

void check_all_weights(llama::model<double> m, const llama::batch& b) {
    lowrank::workspace ws;
    llama::tape<double> record;
    (void)llama::forward<double>(m, b, ws, {.record = &record});
    auto g = llama::zero_model<double>(m.shape);
    const double nll = llama::backward<double>(m, b, record, ws, {.gradients = &g});
    CHECK(nll / static_cast<double>(b.target_count()) == doctest::Approx(mean_nll(m, b)).epsilon(1e-12));
    for (const auto& name : llama::weight_names(m)) {
        CAPTURE(name);
        auto w = *llama::find_weight(m, name);
        const auto gw = *llama::find_weight(g, name);
        const double scale = gw.cwiseAbs().maxCoeff();
        CHECK(scale > 0);
        const llama::index stride = std::max<llama::index>(1, w.size() / 12);
        for (llama::index i = 0; i < w.size(); i += stride) {
            const double want = slope(w.data()[i], [&] { return mean_nll(m, b); });
            CHECK(std::abs(gw.data()[i] - want) < 1e-7 * (1 + scale));
        }
    }
}

}  // namespace

TEST_CASE("gradients of all weights agree with central differences") {
    for (const auto& o : {tiny::options{}, tiny::options{.tied = false, .bias = true}, tiny::options{.key_heads = 4},
                          tiny::options{.tied = false, .heads = 2, .key_heads = 1, .head_dim = 2, .hidden = 5},
                          tiny::options{.bias = true, .heads = 1, .key_heads = 1, .head_dim = 8, .layers = 1}}) {
        const auto m = tiny::model<double>(o);
        check_all_weights(m, tiny::batch(m.shape, {5, 1, 8}));
    }
    const auto m = tiny::model<double>({.layers = 1});
    check_all_weights(m, tiny::batch(m.shape, {80}));  // more queries than one block
}

TEST_CASE("gradients of adapters agree with central differences, with dropout too") {
    for (const double dropout : {0.0, 0.25}) {
        CAPTURE(dropout);
        auto m = tiny::model<double>({.tied = false});
        const auto b = tiny::batch(m.shape, {6, 4});
        llama::adapter_gradients<double> gradients;
        std::vector<std::shared_ptr<lowrank::any_adapter<double>>> trained;
        llama::for_each_projection(m, [&](llama::projection<double>& p) {
            const auto frozen = tiny::any_adapter(p, {.r = 2, .lora_dropout = dropout, .seed = 9});
            trained.push_back(tiny::any_adapter(p, {.r = 3, .lora_alpha = 2, .lora_dropout = dropout, .seed = 4}));
            p.adapters = {{.adapter = frozen, .strength = 0.5}, {.adapter = trained.back(), .strength = 0.7}};
            gradients.emplace(trained.back().get(), trained.back()->zero_gradient());
        });
        const llama::dropout_step masks{.seed = 3, .step = 11};
        lowrank::workspace ws;
        llama::tape<double> record;
        (void)llama::forward<double>(m, b, ws, {.record = &record, .dropout = &masks});
        llama::backward<double>(m, b, record, ws, {.adapters = &gradients, .dropout = &masks});
        if (dropout > 0) {
            CHECK(std::abs(mean_nll(m, b, &masks) - mean_nll(m, b)) > 1e-6);
        }
        std::size_t number = 0;
        for (const auto& adapter : trained) {
            CAPTURE(number);
            const bool is_head = ++number == trained.size();  // lm_head does not drop
            std::vector<double> g(static_cast<std::size_t>(adapter->parameter_count()));
            adapter->pull_back(gradients.at(adapter.get()), g);
            std::size_t offset = 0;
            for (const auto& p : adapter->parameters()) {
                for (const std::size_t i : {std::size_t{0}, p.values.size() - 1, p.values.size() / 2}) {
                    const double want = slope(p.values[i], [&] { return mean_nll(m, b, &masks); });
                    CHECK(std::abs(g[offset + i] - want) < 1e-7);
                }
                offset += p.values.size();
            }
            if (!is_head) {
                CHECK(*std::max_element(g.begin(), g.end()) > 0);
            }
        }
    }
}

TEST_CASE("what the hook hands out is the weight's gradient, and passes sum over batches") {
    const auto m = tiny::model<double>({.tied = false});
    const auto b = tiny::batch(m.shape, {6, 9, 3});
    lowrank::workspace ws;
    llama::tape<double> record;
    auto g = llama::zero_model<double>(m.shape);
    (void)llama::forward<double>(m, b, ws, {.record = &record});
    llama::backward<double>(m, b, record, ws, {.gradients = &g, .scale = 0.5});

    std::map<std::string, matrix<double>> hooked;
    const llama::linear_hook<double> hook = [&](const std::string& name, auto x, auto dy) {
        const auto* p = llama::find_projection(m, name);
        REQUIRE(p != nullptr);
        auto& sum = hooked.try_emplace(name, matrix<double>::Zero(p->rows(), p->cols())).first->second;
        sum += dy * x.transpose();
    };
    for (llama::index s = 0; s < b.sequences(); ++s) {
        const std::vector<llama::index> one{s};
        const auto part = llama::select(b, one);
        (void)llama::forward<double>(m, part, ws, {.record = &record});
        llama::backward<double>(m, part, record, ws, {.on_linear = hook, .scale = 0.5});
    }
    CHECK(hooked.size() == llama::projection_names(m).size());
    for (const auto& each : hooked) {
        const auto& name = each.first;
        const auto& sum = each.second;
        CAPTURE(name);
        const auto& want = llama::find_projection(g, name)->weight;
        CHECK((sum - want).cwiseAbs().maxCoeff() < 1e-12 * (1 + want.cwiseAbs().maxCoeff()));
    }
}

TEST_CASE("backward from given logit gradients is backward from the loss they belong to") {
    for (const bool tied : {true, false}) {
        const auto m = tiny::model<double>({.tied = tied});
        const auto b = tiny::batch(m.shape, {6, 9});
        lowrank::workspace ws;
        llama::tape<double> record;
        const auto hidden = llama::forward<double>(m, b, ws, {.record = &record});
        auto from_loss = llama::zero_model<double>(m.shape);
        llama::backward<double>(m, b, record, ws, {.gradients = &from_loss, .scale = 1});

        matrix<double> d = llama::logits(m, hidden, ws);
        for (llama::index i = 0; i < b.size(); ++i) {
            const int target = b.targets[static_cast<std::size_t>(i)];
            if (target < 0) {
                d.col(i).setZero();
                continue;
            }
            d.col(i) = d.col(i).array().exp() / d.col(i).array().exp().sum();
            d(target, i) -= 1;
        }
        auto from_logits = llama::zero_model<double>(m.shape);
        llama::backward_from_logits<double>(m, b, record, d, ws, {.gradients = &from_logits});
        for (const auto& name : llama::weight_names(m)) {
            CAPTURE(name);
            CHECK(
                (*llama::find_weight(from_loss, name) - *llama::find_weight(from_logits, name)).cwiseAbs().maxCoeff() <
                1e-11);
        }
    }
}

TEST_CASE("a tape of another pass is a broken contract") {
    const auto m = tiny::model<double>();
    lowrank::workspace ws;
    llama::tape<double> record;
    const auto b = tiny::batch(m.shape, {4});
    CHECK_THROWS_AS(llama::backward<double>(m, b, record, ws), lowrank::contract_violation);
    (void)llama::forward<double>(m, b, ws, {.record = &record});
    CHECK_THROWS_AS(llama::backward<double>(m, tiny::batch(m.shape, {5}), record, ws), lowrank::contract_violation);
}

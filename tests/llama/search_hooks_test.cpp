// SPDX-License-Identifier: MIT
#include <llama/search_hooks.hpp>

#include <cstddef>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/search.hpp>

#include "llama/tiny_models.hpp"

using lowrank::sample_range;

namespace {

/// Sequences with a target at every token.
llama::batch questions_of(const llama::config& c, std::initializer_list<llama::index> lengths) {
    llama::batch b = tiny::batch(c, lengths);
    for (std::size_t i = 0; i < b.targets.size(); ++i) {
        b.targets[i] = static_cast<int>((3 * i + 1) % static_cast<std::size_t>(c.vocab_size));
    }
    return b;
}

}  // namespace

TEST_CASE("a re-run from a layer scores as the whole pass, whatever the cache holds") {
    auto m = tiny::model<float>({.layers = 4});
    const auto b = questions_of(m.shape, {5, 1, 7, 3, 9});
    const auto plain = llama::evaluate(m, b).value();
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{13 * 25 * 4 * 2}, std::size_t{1} << 20}) {
        CAPTURE(bytes);
        llama::searchable<float> engine(m, b, {.cache_bytes = bytes, .group_tokens = 8});
        auto hooks = engine.hooks();
        REQUIRE(hooks.weights.size() == 28);
        CHECK(hooks.layers == 4);
        CHECK(hooks.layer_of.front() == 0);
        CHECK(hooks.layer_of.back() == 3);
        const auto unedited = hooks.evaluate_from_layer({0, 5}, 4).value();
        for (std::size_t s = 0; s < 5; ++s) {
            CHECK(unedited.log_loss[s] ==
                  doctest::Approx(plain.sequence_nll[s] / static_cast<double>(b.length(static_cast<llama::index>(s))))
                      .epsilon(1e-6));
        }
        for (const std::size_t w : {std::size_t{20}, std::size_t{9}, std::size_t{27}, std::size_t{1}}) {
            const llama::row_matrix<float> before = hooks.weights[w].weight;
            hooks.weights[w].weight *= 0.5F;
            const auto fast = hooks.evaluate_from_layer({1, 5}, hooks.layer_of[w]).value();
            llama::searchable<float> fresh(m, b, {.group_tokens = 8});
            const auto slow = fresh.hooks().evaluate({1, 5}).value();
            for (std::size_t s = 0; s < 4; ++s) {
                CHECK(fast.log_loss[s] == doctest::Approx(slow.log_loss[s]).epsilon(1e-6));
            }
            // Bit for bit, it does not matter what was asked before.
            CHECK(fresh.hooks().evaluate_from_layer({1, 5}, hooks.layer_of[w]).value().log_loss == fast.log_loss);
            CHECK(fast.log_loss[0] != unedited.log_loss[1]);
            hooks.weights[w].weight = before;
        }
        // The formula: hidden x tokens numbers for each layer kept, at least one layer.
        const std::size_t layer = 13 * 25 * sizeof(float);
        CHECK(engine.cache_bytes() <= std::max(layer, bytes));
        CHECK(engine.cache_bytes() > 0);
        if (bytes > 100000) {
            CHECK(engine.cache_bytes() == 4 * layer);
        }
        engine.forget();
        CHECK(engine.cache_bytes() == 0);
    }
}

TEST_CASE("samples are sequences, tokens or last tokens, and ranges may cut a sequence") {
    auto m = tiny::model<float>();
    const auto b = questions_of(m.shape, {4, 6, 3});
    const auto plain = llama::evaluate(m, b).value();
    llama::searchable<float> tokens(m, b, {.kind = llama::sample_kind::token});
    CHECK(tokens.samples_in(2) == 10);
    const auto middle = tokens.hooks().evaluate({2, 11}).value();
    REQUIRE(middle.size() == 9);
    for (std::size_t i = 0; i < 9; ++i) {
        CHECK(middle.log_loss[i] == doctest::Approx(-plain.log_probability[i + 2]).epsilon(1e-6));
        CHECK((middle.correct[i] != 0) == plain.top1[i + 2]);
    }
    llama::searchable<float> last(m, b, {.kind = llama::sample_kind::last_token});
    const auto answers = last.hooks().evaluate({0, 3}).value();
    CHECK(answers.log_loss[1] == doctest::Approx(-plain.log_probability[9]).epsilon(1e-6));
    CHECK(last.hooks([](const std::string& name) { return name.ends_with("up_proj"); }).weights.size() == 2);
}

TEST_CASE("the hook's gradients of singular values agree with central differences of the mean loss") {
    auto m = tiny::model<double>({.layers = 2});
    const auto b = questions_of(m.shape, {5, 2, 7});
    llama::searchable<double> engine(m, b, {.group_tokens = 8});
    const auto hooks = engine.hooks();
    const auto found = lowrank::gradient_search(hooks, {.validation = {0, 3}, .fractions = {0.5}}, {.samples = 3});
    REQUIRE(found);
    REQUIRE(found.scores.size() == 14);
    const auto mean_loss = [&] { return lowrank::summarize(hooks.evaluate({0, 3}).value()).log_loss; };
    for (const std::size_t w : {0U, 4U, 6U, 10U, 13U}) {
        CAPTURE(w);
        auto view = hooks.weights[w].weight;
        const llama::row_matrix<double> original = view;
        const auto s = lowrank::svd(original).value();
        for (const llama::index i : {0, 3}) {
            const double nudge = 1e-5;
            const lowrank::matrix<double> direction = s.u.col(i) * s.v.col(i).transpose();
            view = original + nudge * direction;
            const double up = mean_loss();
            view = original - nudge * direction;
            const double down = mean_loss();
            view = original;
            CHECK(found.scores[w].gradient(i) == doctest::Approx((up - down) / (2 * nudge)).epsilon(1e-6));
        }
        CHECK(found.scores[w].samples == 3);
    }
}

TEST_CASE("a search with hooks ends as one without") {
    auto m = tiny::model<float>({.layers = 3});
    const auto b = questions_of(m.shape, {6, 7, 8, 9, 5, 6, 7, 8, 6, 9, 7, 8});
    llama::searchable<float> engine(m, b);
    auto hooks = engine.hooks();
    const lowrank::search_options how{.validation = {0, 8}, .held_out = {8, 12}, .fractions = {0.7, 0.3}};
    const auto fast = lowrank::exhaustive_search(hooks, how);
    const lowrank::search_model<float> least{.weights = hooks.weights, .evaluate = hooks.evaluate};
    const auto slow = lowrank::exhaustive_search(least, how);
    REQUIRE(fast);
    REQUIRE(slow);
    CHECK(fast.winner == slow.winner);
    CHECK(fast.best.log_loss == doctest::Approx(slow.best.log_loss).epsilon(1e-6));
    CHECK(fast.held_out_after.log_loss == doctest::Approx(slow.held_out_after.log_loss).epsilon(1e-6));
    CHECK(fast.evaluated_samples == slow.evaluated_samples);
}

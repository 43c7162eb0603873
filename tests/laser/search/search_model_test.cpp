// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/search_model.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/search.hpp>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::planted_model;

TEST_CASE("every evaluation says from which layer on the model is edited, and the layers are counted") {
    planted_model<float> model(1, 100);
    auto asked = model.searchable();
    std::vector<std::pair<lowrank::index, bool>> calls;  // first layer, and whether the layers below are untouched
    const row_matrix<float> mixer = model.mixer, head = model.head;
    asked.evaluate_from_layer = [&](sample_range r, lowrank::index first) {
        const bool below = (first < 1 || lowrank_tests::same_bits(mixer, model.mixer)) &&
                           (first < 2 || lowrank_tests::same_bits(head, model.head));
        calls.emplace_back(first, below);
        return model(r);
    };
    const search_options how{
        .validation = {0, 40}, .held_out = {40, 100}, .fractions = {0.5, 0.25}, .samples_per_call = 1000};
    const auto found = exhaustive_search(asked, how);
    REQUIRE(found);
    CHECK(calls == std::vector<std::pair<lowrank::index, bool>>{
                       {2, true}, {0, true}, {0, true}, {1, true}, {1, true}, {2, true}, {1, true}});
    CHECK(found.evaluated_samples == 5 * 40 + 2 * 60);
    CHECK(found.evaluated_sample_layers == 40 * (2 + 2 + 2 + 1 + 1) + 60 * (2 + 1));
    CHECK(found.held_out_sample_layers == 60 * (2 + 1));

    // Greedy from the last layer down: with the head edited, the mixer's edits run from layer 0.
    std::reverse(asked.weights.begin(), asked.weights.end());
    asked.layer_of = {1, 0};
    calls.clear();
    const auto greedy = greedy_search(asked, how);
    REQUIRE(greedy);
    CHECK(greedy.edits().size() == 1);
    CHECK(calls == std::vector<std::pair<lowrank::index, bool>>{
                       {2, true}, {2, true}, {1, true}, {1, true}, {0, true}, {0, true}, {1, true}});
    CHECK(greedy.evaluated_sample_layers == 40 * (2 + 1 + 1 + 2 + 2) + 60 * (2 + 1));
    CHECK(greedy.held_out_sample_layers == 60 * (2 + 1));
}

TEST_CASE("without hooks every evaluation is a whole pass of one layer") {
    planted_model<float> model(2, 100);
    const search_model<float> asked{.weights = model.weights(), .evaluate = model.evaluate()};
    const auto found = exhaustive_search(asked, {.validation = {0, 40}, .fractions = {0.5}});
    CHECK(found.evaluated_sample_layers == found.evaluated_samples);
    CHECK(asked.layer(1) == 0);
}

TEST_CASE("a model that does not fit together is refused") {
    planted_model<float> model(3, 100);
    const search_options how{.validation = {0, 40}, .fractions = {0.5}};
    auto asked = model.searchable();
    asked.layer_of = {0};
    CHECK_THROWS_AS((void)exhaustive_search(asked, how), contract_violation);
    asked.layer_of = {0, 2};
    CHECK_THROWS_AS((void)exhaustive_search(asked, how), contract_violation);
    asked.layer_of = {0, 1};
    asked.evaluate = {};
    CHECK_THROWS_AS((void)exhaustive_search(asked, how), contract_violation);
}

TEST_CASE("weights in another order take their hooks along") {
    lowrank_tests::planted_model<double> model(7, 60);
    lowrank_tests::kept_elsewhere<double> engine{.model = model};
    const auto plain = engine.hooks();
    const auto turned = reordered(plain, {1, 0});
    CHECK(turned.weights[0].name == "head");
    CHECK(turned.layer(0) == 1);
    CHECK(turned.read(0).value() == model.head);
    const search_options how{.validation = {0, 60}, .fractions = {0.6, 0.3, 0.25}};
    const auto a = exhaustive_search(plain, how), b = exhaustive_search(turned, how);
    CHECK(a.edits() == b.edits());
    CHECK(b.winner == *a.winner - 3);
    const auto g = gradient_search(plain, how, {.samples = 30, .matrices = 1});
    const auto h = gradient_search(turned, how, {.samples = 30, .matrices = 1});
    CHECK(g.scores[0].gradient == h.scores[1].gradient);
    const auto x = greedy_search(turned, how);
    CHECK(x.edits().front() == a.edits().front());
    CHECK_THROWS_AS((void)reordered(plain, {0}), contract_violation);
    CHECK_THROWS_AS((void)reordered(plain, {1, 1}), contract_violation);
    CHECK_THROWS_AS((void)reordered(plain, {0, 2}), contract_violation);
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/laser/search/greedy_search.hpp>

#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::planted_model;
using lowrank_tests::untouched;

namespace {

/// Two edits help, and only together: right answers are given for the state of the weights, not computed.
struct scripted {
    row_matrix<float> a, b, c;
    scripted() : a(row_matrix<float>::Identity(4, 4)), b(a), c(a) {
        for (lowrank::index i = 0; i < 4; ++i) {
            a(i, i) = b(i, i) = c(i, i) = static_cast<float>(4 - i);  // distinct singular values: ranks are seen
        }
    }
    [[nodiscard]] std::vector<named_weight<float>> weights() { return {{"a", a}, {"b", b}, {"c", c}}; }
    /// Of 10 samples: 4 right; 6 with a at rank 2; then 9 with b at rank 1, but b alone harms; c at any rank harms.
    [[nodiscard]] sample_scores operator()(sample_range r) const {
        const auto rank = [](const row_matrix<float>& m) { return (m.diagonal().array() > 0.5F).count(); };
        lowrank::index right = 4;
        right += rank(a) == 2 ? 2 : 0;
        right += rank(b) == 1 ? (rank(a) == 2 ? 3 : -2) : 0;
        right -= rank(c) < 4 ? 3 : 0;
        sample_scores s;
        for (lowrank::index i = r.begin; i < r.end; ++i) {
            s.add(i % 10 < right, 1.0);
        }
        return s;
    }
    [[nodiscard]] evaluator evaluate() const {
        return [this](sample_range r) { return (*this)(r); };
    }
};

}  // namespace

TEST_CASE("edits are kept where they help with the others in place, and only there") {
    scripted model;
    const auto weights = model.weights();
    const auto r = greedy_search<float>({.weights = weights, .evaluate = model.evaluate()},
                                        {.validation = {0, 10}, .held_out = {10, 110}, .fractions = {0.75, 0.5, 0.25}});
    REQUIRE(r);
    REQUIRE(r.edits().size() == 2);
    const auto& steps = r.winning()->edits;
    CHECK(to_text(steps[0].what) == "keep 0-1 of 4 in a");
    CHECK(to_text(steps[1].what) == "keep 0 of 4 in b");
    CHECK(r.baseline.correct == 4);
    CHECK(steps[0].validation.correct == 6);
    CHECK(r.best.correct == 9);
    CHECK(r.candidates.size() == 9);
    CHECK(r.held_out_before.correct == 40);
    CHECK(r.held_out_after.correct == 90);
    CHECK(r.evidence->gain_is_significant());
    CHECK(model.a.diagonal().minCoeff() == 1);  // restored
    CHECK(model.b.diagonal().minCoeff() == 1);

    const auto done = apply_edits<float>(weights, r.edits());
    REQUIRE(done);
    CHECK(summarize(model({10, 110})).correct == 90);
    REQUIRE(undo_edits<float>(weights, *done));
}

TEST_CASE("a second pass finds what the first came too early for") {
    scripted model;
    const std::vector<named_weight<float>> b_first = {{"b", model.b}, {"a", model.a}};
    const search_options options{.validation = {0, 10}, .fractions = {0.75, 0.5, 0.25}};
    const auto once = greedy_search<float>({.weights = b_first, .evaluate = model.evaluate()}, options);
    CHECK(once.edits().size() == 1);
    CHECK(once.best.correct == 6);
    const auto more = greedy_search<float>({.weights = b_first, .evaluate = model.evaluate()}, options, {.passes = 5});
    REQUIRE(more.edits().size() == 2);
    CHECK(to_text(more.edits()[1]) == "keep 0 of 4 in b");
    CHECK(more.best.correct == 9);
    CHECK(more.candidates.size() == 3 * 2 + 3);  // both, then b; then nothing is left to visit
    CHECK_THROWS_AS(
        (void)greedy_search<float>({.weights = b_first, .evaluate = model.evaluate()}, options, {.passes = 0}),
        contract_violation);
}

TEST_CASE_TEMPLATE("the validation score never falls, and is at least that of the best single edit", T, float, double) {
    for (const std::uint64_t seed : {1U, 2U, 3U, 4U}) {
        planted_model<T> model(seed, 300);
        const untouched<T> before{model};
        const search_options options{
            .validation = {0, 100}, .held_out = {100, 300}, .fractions = {0.9, 0.6, 0.5, 0.25, 0.1}};
        auto weights = model.weights();
        std::swap(weights[0], weights[1]);
        const auto single = exhaustive_search<T>({.weights = weights, .evaluate = model.evaluate()}, options);
        const auto many = greedy_search<T>({.weights = weights, .evaluate = model.evaluate()}, options, {.passes = 2});
        REQUIRE(many);
        CHECK(before.now());
        REQUIRE(many.winning() != nullptr);
        score last = many.baseline;
        for (const auto& step : many.winning()->edits) {
            CHECK(better(step.validation, last));
            last = step.validation;
        }
        CHECK_FALSE(better(single.best, many.best));

        const auto done = apply_edits<T>(weights, many.edits()).value();
        CHECK(summarize(model({0, 100})).log_loss == many.best.log_loss);
        CHECK(summarize(model({100, 300})).log_loss == many.held_out_after.log_loss);
        REQUIRE(undo_edits<T>(weights, done));
        CHECK(before.now());
    }
}

TEST_CASE("cancelling, failing and throwing at any point restore every weight") {
    planted_model<float> model(5, 60);
    const untouched<float> before{model};
    search_options options{.validation = {0, 30}, .held_out = {30, 60}, .fractions = {0.5, 0.25}};
    for (int stop_at = 0; stop_at < 7; ++stop_at) {
        CAPTURE(stop_at);
        int calls = 0;
        options.on_progress = [&](const progress& p) {
            CHECK(p.done <= p.total);
            return calls++ < stop_at;
        };
        CHECK(greedy_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, options).why.code ==
              errc::cancelled);
        CHECK(before.now());
        options.on_progress = {};

        calls = 0;
        const auto fails = [&](sample_range r) -> result<sample_scores> {
            if (calls++ == stop_at) {
                return status{errc::io_failure, "the samples are gone"};
            }
            return model(r);
        };
        const auto failed = greedy_search<float>({.weights = model.weights(), .evaluate = fails}, options);
        CHECK(failed.why.code == (calls > stop_at ? errc::io_failure : errc::ok));
        CHECK(before.now());

        calls = 0;
        const auto throws = [&](sample_range r) -> result<sample_scores> {
            if (calls++ == stop_at) {
                throw std::runtime_error("out of patience");
            }
            return model(r);
        };
        try {
            (void)greedy_search<float>({.weights = model.weights(), .evaluate = throws}, options);
            CHECK(calls <= stop_at);
        } catch (const std::runtime_error&) {
            CHECK(calls == stop_at + 1);
        }
        CHECK(before.now());
    }
}

TEST_CASE("random scores move the search only upwards") {
    // With answers that are pure chance per state of the weights, whatever is kept was strictly better when tried.
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        scripted model;
        const auto chance = [&](sample_range r) {
            const auto state = static_cast<std::uint64_t>(100 * model.a.sum() + 10 * model.b.sum() + model.c.sum());
            sample_scores s;
            for (lowrank::index i = r.begin; i < r.end; ++i) {
                s.add(philox(seed, state).uniform<double>(static_cast<std::uint64_t>(i)) < 0.5, 1.0);
            }
            return s;
        };
        const auto r = greedy_search<float>({.weights = model.weights(), .evaluate = chance},
                                            {.validation = {0, 25}, .fractions = {0.75, 0.5, 0.25, 0.0}});
        REQUIRE(r);
        CHECK(r.candidates.size() == 12);
        lowrank::index last = r.baseline.correct;
        for (std::size_t i = 0; i < r.edits().size(); ++i) {
            CHECK(r.winning()->edits[i].validation.correct > last);
            last = r.winning()->edits[i].validation.correct;
        }
        CHECK_FALSE(r.selection);
        CHECK(model.a.sum() == 10);
        CHECK(model.b.sum() == 10);
        CHECK(model.c.sum() == 10);
    }
}

TEST_CASE("a beam follows a second-best edit that wins in the end, and a width of one is greedy") {
    // Alone, a at rank 2 is the better edit; with b edited, a at rank 3 is.
    scripted model;
    const auto weights = model.weights();
    const auto rank = [](const row_matrix<float>& m) { return (m.diagonal().array() > 0.5F).count(); };
    const evaluator evaluate = [&](sample_range r) {
        const bool b_edited = rank(model.b) == 1;
        lowrank::index right = 4;
        right += rank(model.a) == 2 ? 2 : rank(model.a) == 3 ? (b_edited ? 5 : 1) : 0;
        sample_scores s;
        for (lowrank::index i = r.begin; i < r.end; ++i) {
            s.add(i % 10 < right, 1.0);
        }
        return s;
    };
    const search_model<float> asked{.weights = weights, .evaluate = evaluate};
    const search_options how{.validation = {0, 10}, .held_out = {10, 110}, .fractions = {0.75, 0.5, 0.25}};
    const auto greedy = greedy_search(asked, how);
    REQUIRE(greedy);
    CHECK(greedy.edits().size() == 1);
    CHECK(greedy.best.correct == 6);
    const auto beam = greedy_search(asked, how, {.width = 2});
    REQUIRE(beam);
    REQUIRE(beam.edits().size() == 2);
    CHECK(to_text(beam.edits()[0]) == "keep 0-2 of 4 in a");
    CHECK(to_text(beam.edits()[1]) == "keep 0 of 4 in b");
    CHECK(beam.best.correct == 9);
    CHECK(beam.held_out_after.correct == 90);
    CHECK(model.a.diagonal().minCoeff() == 1);
    CHECK(model.b.diagonal().minCoeff() == 1);
    // No evaluation twice: the sets differ, so do their words.
    CHECK(beam.candidates.size() == 3 + 2 * 3 + 2 * 3);
    CHECK_THROWS_AS((void)greedy_search(asked, how, {.width = 0}), contract_violation);
}

// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/halving_search.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/laser/search/search.hpp>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::planted_model;
using lowrank_tests::untouched;

namespace {

const search_options halving_how = {
    .validation = {0, 256}, .held_out = {256, 512}, .fractions = {0.9, 0.6, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01}};

}  // namespace

TEST_CASE_TEMPLATE("halving ends with the edit of the exhaustive search and looks at fewer samples", T, float,
                   bfloat16) {
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
        planted_model<T> model(seed, 512);
        const untouched<T> before{model};
        const search_model<T> asked{.weights = model.weights(), .evaluate = model.evaluate()};
        const auto all = exhaustive_search(asked, halving_how);
        const auto few = halving_search(asked, halving_how, {.first_samples = 16, .finalists = 2});
        REQUIRE(all);
        REQUIRE(few);
        CHECK(before.now());
        REQUIRE(few.winner);
        CHECK(few.edits() == all.edits());
        CHECK(few.best.correct == all.best.correct);
        CHECK(few.best.log_loss == doctest::Approx(all.best.log_loss).epsilon(1e-12));
        CHECK(few.evidence->gained == all.evidence->gained);
        CHECK(few.candidates.size() == all.candidates.size());
        // 14 distinct candidates on 16 samples, 3 on 48 more, 2 on all; the unedited model and the held-out samples.
        CHECK(few.evaluated_samples == 256 + 14 * 16 + 3 * 48 + 2 * 192 + 2 * 256);
        CHECK(all.evaluated_samples == 256 + 14 * 256 + 2 * 256);
        CHECK(few.evaluated_sample_layers == few.evaluated_samples);
        CHECK(few.factorizations == 2);
        for (std::size_t i = 0; i < few.candidates.size(); ++i) {
            CHECK(few.candidates[i].newest().what == all.candidates[i].newest().what);
            CHECK(few.candidates[i].newest().fraction == all.candidates[i].newest().fraction);
        }
    }
}

TEST_CASE("a first round of all samples is the exhaustive search") {
    planted_model<float> model(4, 512);
    const search_model<float> asked{.weights = model.weights(), .evaluate = model.evaluate()};
    const auto all = exhaustive_search(asked, halving_how);
    const auto one_round = halving_search(asked, halving_how, {.first_samples = 256});
    CHECK(one_round.evaluated_samples == all.evaluated_samples);
    CHECK(one_round.winner == all.winner);
    for (std::size_t i = 0; i < all.candidates.size(); ++i) {
        CHECK(one_round.candidates[i].validation.log_loss == all.candidates[i].validation.log_loss);
    }
}

TEST_CASE("factorizations that may not stay are made again, with the same outcome") {
    planted_model<float> model(5, 512);
    const search_model<float> asked{.weights = model.weights(), .evaluate = model.evaluate()};
    auto how = halving_how;
    const auto roomy = halving_search(asked, how, {.first_samples = 16, .finalists = 8});
    how.factor_bytes = 0;
    const auto tight = halving_search(asked, how, {.first_samples = 16, .finalists = 8});
    REQUIRE(tight);
    CHECK(tight.factorizations > roomy.factorizations);
    CHECK(tight.edits() == roomy.edits());
    CHECK(tight.best.log_loss == roomy.best.log_loss);
}

TEST_CASE("each place of the next round goes to most right answers and least loss in turn") {
    std::vector<search_candidate> c(4);
    c[0].validation = {.samples = 8, .correct = 7, .log_loss = 3};
    c[1].validation = {.samples = 8, .correct = 1, .log_loss = 0.1};
    c[2].validation = {.samples = 8, .correct = 6, .log_loss = 2};
    c[3].validation = {.samples = 8, .correct = 2, .log_loss = 0.2};
    CHECK(detail::most_promising(c, {0, 1, 2, 3}, 1) == std::vector<std::size_t>{0});
    CHECK(detail::most_promising(c, {0, 1, 2, 3}, 2) == std::vector<std::size_t>{0, 1});
    CHECK(detail::most_promising(c, {0, 1, 2, 3}, 3) == std::vector<std::size_t>{0, 1, 2});
    CHECK(detail::most_promising(c, {2, 3}, 5) == std::vector<std::size_t>{2, 3});
}

TEST_CASE("a halving search killed at any evaluation resumes from its journal to the same result") {
    planted_model<float> model(6, 512);
    const untouched<float> before{model};
    std::string file;
    const auto keep = [&](std::string_view line) {
        file += line;
        return status{};
    };
    lowrank::index calls = 0, stop_at = 1 << 30;
    const search_model<float> asked{.weights = model.weights(),
                                    .evaluate = [&](sample_range r) -> result<sample_scores> {
                                        if (++calls > stop_at) {
                                            return status{errc::io_failure, "killed"};
                                        }
                                        return model(r);
                                    }};
    auto how = halving_how;
    how.samples_per_call = 1000;
    const auto whole = halving_search(asked, how, {.first_samples = 16, .finalists = 2});
    const auto total = calls;
    REQUIRE(whole);
    const philox rng(7);
    for (std::uint64_t trial = 0; trial < 8; ++trial) {
        file.clear();
        search_journal log(keep, "planted");
        how.log = &log;
        calls = 0;
        stop_at = static_cast<lowrank::index>(rng.below(static_cast<std::uint64_t>(total), trial));
        CHECK(halving_search(asked, how, {.first_samples = 16, .finalists = 2}).why.message == "killed");
        CHECK(before.now());
        // A crash may cut the last line anywhere.
        file += "scored 0 16 0101";
        auto resumed = search_journal::read(file, keep, "planted").value();
        file.resize(resumed.accepted_bytes());
        how.log = &resumed;
        const auto done = stop_at;
        calls = 0;
        stop_at = 1 << 30;
        const auto rest = halving_search(asked, how, {.first_samples = 16, .finalists = 2});
        REQUIRE(rest);
        CHECK(calls == total - done);
        CHECK(rest.edits() == whole.edits());
        CHECK(rest.best.log_loss == whole.best.log_loss);
        CHECK(rest.evidence->log_loss_gain == whole.evidence->log_loss_gain);
    }
}

TEST_CASE("a halving search says what is wrong with its options") {
    planted_model<float> model(8, 20);
    const search_model<float> asked{.weights = model.weights(), .evaluate = model.evaluate()};
    CHECK_THROWS_AS((void)halving_search(asked, {.validation = {0, 10}}, {.first_samples = 0}), contract_violation);
    CHECK_THROWS_AS((void)halving_search(asked, {.validation = {0, 10}}, {.factor = 1}), contract_violation);
    CHECK_THROWS_AS((void)halving_search(asked, {.validation = {0, 10}}, {.finalists = 0}), contract_violation);
}

TEST_CASE("the first round grows until its samples tell the candidates apart, and a fixed one says when they do not") {
    for (const std::uint64_t seed : {1U, 2U, 3U, 4U, 5U}) {
        CAPTURE(seed);
        planted_model<float> model(seed, 512);
        const search_model<float> asked{.weights = model.weights(), .evaluate = model.evaluate()};
        const auto all = exhaustive_search(asked, halving_how);
        const auto found = halving_search(asked, halving_how);
        REQUIRE(found);
        CHECK(found.edits() == all.edits());
        CHECK(found.warning.empty());
        CHECK(found.evaluated_samples < all.evaluated_samples);
        REQUIRE_FALSE(found.rounds.empty());
        for (std::size_t i = 0; i < found.rounds.size(); ++i) {
            const auto& round = found.rounds[i];
            CHECK(round.by_chance >= 2);
            if (round.candidates == found.rounds.front().candidates) {  // none was dropped before
                CHECK(round.samples == (lowrank::index{8} << i));
                const bool last = i + 1 == found.rounds.size() || found.rounds[i + 1].candidates < round.candidates;
                CHECK((round.separation >= round.by_chance) == last);
            }
        }
        const auto one = halving_search(asked, halving_how, {.first_samples = 1});
        REQUIRE(one);
        CHECK(one.rounds.front().separation == 0);
        CHECK(one.warning.find("the first round's 1 samples do not tell its 14 candidates apart") == 0);
    }
}

TEST_CASE("a round compares answers if any differ, losses otherwise") {
    std::vector<search_candidate> c(3);
    std::vector<sample_scores> scores(3);
    for (std::size_t i = 0; i < 3; ++i) {
        for (int j = 0; j < 16; ++j) {
            scores[i].add(false, 1 + 0.1 * static_cast<double>(i) + 0.001 * (j % 3));
        }
        c[i].validation = summarize(scores[i]);
    }
    const auto by_loss = detail::round_of(c, scores, {0, 1, 2});
    CHECK(by_loss.samples == 16);
    CHECK(by_loss.candidates == 3);
    CHECK(by_loss.separation > 1e6);  // every sample says the same
    scores[1].correct[0] = scores[0].correct[1] = 1;
    c[0].validation = summarize(scores[0]);
    c[1].validation = summarize(scores[1]);
    CHECK(detail::round_of(c, scores, {0, 1, 2}).separation == 0);  // one right answer each: chance
    CHECK(detail::round_of(c, scores, {0}).separation == 0);
    CHECK(detail::round_of(c, scores, {}).candidates == 0);
}

// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/search/search.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include <doctest/doctest.h>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::planted_model;
using lowrank_tests::same_bits;
using lowrank_tests::untouched;

namespace {

const std::vector<double> grid = {0.9, 0.6, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01};

}  // namespace

TEST_CASE_TEMPLATE("the planted edit is found, reported on other samples, and can be applied", T, float, double,
                   bfloat16) {
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
        planted_model<T> model(seed, 500);
        const untouched<T> before{model};
        const auto weights = model.weights();
        const auto r = exhaustive_search<T>({.weights = weights, .evaluate = model.evaluate()},
                                            {.validation = {0, 100}, .held_out = {100, 500}, .fractions = grid});
        REQUIRE(r);
        CHECK(before.now());
        REQUIRE(r.candidates.size() == 2 * grid.size());
        REQUIRE(r.winner);
        CHECK(to_text(r.edits().front()) == "keep 0-2 of 12 in head");
        const auto& won = r.candidates[static_cast<std::size_t>(*r.winner)];
        CHECK(won.newest().fraction == 0.25);
        CHECK(won.newest().rank == 3);
        CHECK(won.relative_error == doctest::Approx(10.0 / std::sqrt(345.0)).epsilon(1e-2));
        CHECK(r.best.correct >= (std::is_same_v<T, bfloat16> ? 97 : 100));
        CHECK(r.baseline.correct < 90);
        CHECK(better(r.best, r.baseline));
        for (const auto& c : r.candidates) {
            CHECK(c.why);
            CHECK(c.newest().rank == rank_from_fraction(c.newest().fraction, 12, 12));
            CHECK_FALSE(better(c.validation, r.best));
        }

        REQUIRE(r.evidence);
        CHECK(r.held_out_before.samples == 400);
        CHECK(r.evidence->samples == 400);
        CHECK(r.evidence->gain_is_significant());
        CHECK(r.evidence->mcnemar_p < 1e-6);
        CHECK(r.evidence->gained - r.evidence->lost == r.held_out_after.correct - r.held_out_before.correct);

        // The stored line leads back to the same model.
        const auto stored = parse_edit(to_text(r.edits().front())).value();
        const auto done = apply_edits<T>(weights, {stored});
        REQUIRE(done);
        CHECK(summarize(model({100, 500})).correct == r.held_out_after.correct);
        CHECK(summarize(model({100, 500})).log_loss == r.held_out_after.log_loss);
        REQUIRE(undo_edits<T>(weights, *done));
        CHECK(before.now());
    }
}

TEST_CASE("fractions of one rank are evaluated once, held-out samples only for the winner") {
    planted_model<float> model(4, 160);
    // Ranks of 12: 10, 7, 6, 3, 2, 1, 0, 0: seven distinct.
    const auto r = exhaustive_search<float>(
        {.weights = model.weights(), .evaluate = model.evaluate()},
        {.validation = {0, 60}, .held_out = {60, 160}, .fractions = grid, .samples_per_call = 1000});
    REQUIRE(r);
    CHECK(model.calls == 1 + 2 * 7 + 2);
    CHECK(r.evaluated_samples == 60 * (1 + 2 * 7) + 2 * 100);
    CHECK(r.candidates[6].newest().rank == 0);
    CHECK(r.candidates[7].newest().rank == 0);
    CHECK(r.candidates[6].validation.log_loss == r.candidates[7].validation.log_loss);
    CHECK(r.candidates[6].validation.samples == 60);
}

TEST_CASE("a model that no edit improves stays as it is") {
    planted_model<double> model(5, 200);
    // With the misleading directions gone, the full head is the truth: every edit can only tie or lose.
    const auto s = svd(model.head).value();
    REQUIRE(truncate_weight(weight_view<double>(model.head), s, 3));
    const untouched<double> before{model};
    const auto r = exhaustive_search<double>({.weights = model.weights(), .evaluate = model.evaluate()},
                                             {.validation = {0, 100},
                                              .held_out = {100, 200},
                                              .fractions = {1.0, 0.2, 0.1}});  // 1.0 is the model itself: a tie
    REQUIRE(r);
    CHECK_FALSE(r.winner);
    CHECK_FALSE(r.evidence);
    CHECK(r.edits().empty());
    CHECK(r.best.correct == r.baseline.correct);
    CHECK(r.candidates[0].validation.log_loss == r.baseline.log_loss);
    CHECK(r.held_out_after.correct == r.held_out_before.correct);
    CHECK(before.now());
}

TEST_CASE("equal accuracy is decided by the smaller loss, an equal loss by the first candidate") {
    row_matrix<float> a = row_matrix<float>::Identity(4, 4), b = a;
    const std::vector<named_weight<float>> weights = {{"a", a}, {"b", b}};
    const auto evaluate = [&](sample_range r) {
        sample_scores s;
        const double loss = a.isZero(0) || b.isZero(0) ? 0.5 : 1.0;
        for (lowrank::index i = r.begin; i < r.end; ++i) {
            s.add(true, loss);
        }
        return s;
    };
    const auto r = exhaustive_search<float>({.weights = weights, .evaluate = evaluate},
                                            {.validation = {0, 10}, .fractions = {0.5, 0.0}});
    REQUIRE(r);
    REQUIRE(r.winner);
    CHECK(*r.winner == 1);
    CHECK(to_text(r.edits().front()) == "keep none of 4 in a");
    CHECK_FALSE(r.evidence);
}

TEST_CASE("cancelling at any point restores every weight") {
    planted_model<float> model(6, 80);
    const untouched<float> before{model};
    lowrank::index total = 0, calls = 0;
    search_options options{.validation = {0, 40}, .held_out = {40, 80}, .fractions = {0.5, 0.25}};
    options.on_progress = [&](const progress& p) {
        CHECK(p.done <= p.total);
        CHECK_FALSE(p.what.empty());
        total = p.total;
        ++calls;
        return true;
    };
    const auto whole = exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, options);
    REQUIRE(whole);
    CHECK(total == 1 + 4 + 2);
    const auto all_calls = calls;
    for (lowrank::index stop_at = 0; stop_at < all_calls - 1; ++stop_at) {  // the last call only says "done"
        CAPTURE(stop_at);
        calls = 0;
        options.on_progress = [&](const progress&) { return calls++ < stop_at; };
        const auto r = exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, options);
        CHECK(r.why.code == errc::cancelled);
        CHECK(before.now());
        CHECK(r.candidates.size() <= 4);
        for (std::size_t i = 0; i < r.candidates.size(); ++i) {
            CHECK(r.candidates[i].validation.log_loss == whole.candidates[i].validation.log_loss);
        }
    }
}

TEST_CASE("a candidate whose loss is not finite is listed and cannot win") {
    planted_model<float> model(7, 100);
    const untouched<float> before{model};
    const auto evaluate = [&](sample_range r) {
        auto s = model(r);
        if (std::abs(model.head.norm() - std::sqrt(245.0F)) < 0.01F) {  // the planted winner
            s.log_loss.back() = std::numeric_limits<double>::quiet_NaN();
        }
        return s;
    };
    const auto r = exhaustive_search<float>({.weights = model.weights(), .evaluate = evaluate},
                                            {.validation = {0, 100}, .fractions = {0.25, 0.2}});
    REQUIRE(r);
    CHECK(r.candidates[2].why.code == errc::non_finite);
    CHECK(r.candidates[3].why);
    CHECK((!r.winner || *r.winner != 2));
    CHECK(before.now());
}

TEST_CASE("a search that cannot go on says why and restores every weight") {
    planted_model<float> model(8, 100);
    const untouched<float> before{model};
    search_options options{.validation = {0, 50}, .held_out = {50, 100}, .fractions = {0.25}};

    const auto always_nan = [](sample_range r) {
        sample_scores s;
        for (lowrank::index i = r.begin; i < r.end; ++i) {
            s.add(true, std::numeric_limits<double>::quiet_NaN());
        }
        return s;
    };
    CHECK(exhaustive_search<float>({.weights = model.weights(), .evaluate = always_nan}, options).why.code ==
          errc::non_finite);

    for (int fail_at = 0; fail_at < 5; ++fail_at) {
        int call = 0;
        const auto fails = [&](sample_range r) -> result<sample_scores> {
            if (call++ == fail_at) {
                return status{errc::io_failure, "the samples are gone"};
            }
            return model(r);
        };
        const auto r = exhaustive_search<float>({.weights = model.weights(), .evaluate = fails}, options);
        CHECK(r.why.message == "the samples are gone");
        CHECK(before.now());

        call = 0;
        const auto throws = [&](sample_range range) -> result<sample_scores> {
            if (call++ == fail_at) {
                throw std::runtime_error("out of patience");
            }
            return model(range);
        };
        CHECK_THROWS_AS((void)exhaustive_search<float>({.weights = model.weights(), .evaluate = throws}, options),
                        std::runtime_error);
        CHECK(before.now());
    }

    model.mixer(0, 0) = std::numeric_limits<float>::infinity();
    const auto fine = [](sample_range r) {
        sample_scores s;
        for (lowrank::index i = r.begin; i < r.end; ++i) {
            s.add(true, 1.0);
        }
        return s;
    };
    const auto r = exhaustive_search<float>({.weights = model.weights(), .evaluate = fine}, options);
    CHECK(r.why.code == errc::non_finite);
    CHECK(r.why.message.find("mixer") != std::string::npos);
}

TEST_CASE("magnitude pruning is searched beside truncation, or alone") {
    for (const bool unimodal : {false, true}) {
        planted_model<float> model(4, 300);
        const untouched<float> before{model};
        search_options options{.validation = {0, 100}, .held_out = {100, 300}, .fractions = grid};
        options.densities = {0.9, 0.5, 0.1, 0.02};
        const search_model<float> asked{.weights = model.weights(), .evaluate = model.evaluate()};
        const auto both = exhaustive_search(asked, options, {.unimodal = unimodal});
        REQUIRE(both);
        CHECK(before.now());
        CHECK(to_text(both.edits().front()) == "keep 0-2 of 12 in head");
        CHECK((unimodal || both.candidates.size() == 2 * (grid.size() + 4)));
        options.groups.clear();
        const auto pruned = exhaustive_search(asked, options, {.unimodal = unimodal});
        REQUIRE(pruned);
        CHECK(before.now());
        for (const auto& c : pruned.candidates) {
            CHECK(std::holds_alternative<kept_entries>(c.newest().what.kept));
            CHECK(c.parameters == c.newest().what.keep().size());
            CHECK(parse_edit(to_text(c.newest().what)).value() == c.newest().what);
        }
        CHECK_FALSE(better(pruned.best, both.best));
    }
    planted_model<float> model(4, 20);
    search_options wrong{.validation = {0, 10}};
    wrong.densities = {1.5};
    CHECK_THROWS_WITH_AS(
        (void)exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, wrong),
        "exhaustive_search: every density must be in [0, 1], got 1.5", contract_violation);
}

TEST_CASE("an executor changes nothing but the time") {
    const executor two_threads = [](lowrank::index n, const task& body) {
        std::thread other([&] {
            for (lowrank::index i = 1; i < n; i += 2) {
                body(i);
            }
        });
        for (lowrank::index i = 0; i < n; i += 2) {
            body(i);
        }
        other.join();
    };
    planted_model<float> model(9, 300);
    search_options options{.validation = {0, 100}, .held_out = {100, 300}, .fractions = grid, .samples_per_call = 7};
    const auto one = exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, options);
    options.exec = two_threads;
    const auto two = exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, options);
    REQUIRE(one);
    REQUIRE(two);
    CHECK(one.winner == two.winner);
    CHECK(one.evidence->log_loss_gain == two.evidence->log_loss_gain);
    for (std::size_t i = 0; i < one.candidates.size(); ++i) {
        CHECK(one.candidates[i].validation.correct == two.candidates[i].validation.correct);
        CHECK(one.candidates[i].validation.log_loss == two.candidates[i].validation.log_loss);
    }
}

TEST_CASE("broken contracts are named") {
    planted_model<float> model(10, 20);
    const auto run = [&](const search_options& o) {
        return exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, o);
    };
    CHECK_THROWS_AS((void)run({.validation = {0, 0}}), contract_violation);
    CHECK_THROWS_AS((void)run({.validation = {0, 10}, .held_out = {5, 20}}), contract_violation);
    CHECK_THROWS_AS((void)run({.validation = {5, 10}, .held_out = {0, 6}}), contract_violation);
    CHECK_THROWS_WITH_AS((void)run({.validation = {0, 10}, .fractions = {1.5}}),
                         "exhaustive_search: every fraction must be in [0, 1], got 1.5", contract_violation);
    CHECK_THROWS_AS(
        (void)exhaustive_search<float>({.weights = model.weights(), .evaluate = evaluator{}}, {.validation = {0, 10}}),
        contract_violation);
    const auto none = exhaustive_search<float>(
        {.weights = std::vector<named_weight<float>>{}, .evaluate = model.evaluate()}, {.validation = {0, 9}});
    CHECK(none);
    CHECK_FALSE(none.winner);
    CHECK(run({.validation = {10, 20}, .held_out = {0, 10}}));
}

// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/detail/search_session.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/search.hpp>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::kept_elsewhere;
using lowrank_tests::planted_model;
using lowrank_tests::untouched;

TEST_CASE("an edit that cannot be written or scored is said, and the weight is as it was") {
    planted_model<float> model(2, 40);
    const untouched<float> before{model};
    const auto asked = model.searchable();
    const search_options how{.validation = {0, 40}};
    const auto of_head = [](lowrank::index keep, lowrank::index of) {
        return candidate_edit{.what = {"head", kept_components{component_set::first(keep), of}}, .weight = 1};
    };
    const candidate_edit mixer{.what = {"mixer", kept_blocks{component_set::first(1), 6, 2}}, .weight = 0};
    {
        const auto opened = detail::open_model("test", asked, how);
        detail::search_session session("test", *opened, how);
        const auto found = session.run([&](search_result& out) -> status {
            CHECK(out.baseline.samples == 40);
            search_candidate wrong{.edits = {mixer, of_head(1, 13)}};
            REQUIRE(session.evaluate(wrong, how.validation));
            CHECK(wrong.why.code == errc::mismatch);
            CHECK(lowrank_tests::same_bits(before.head, model.head));
            search_candidate right{.edits = {of_head(3, 12)}};
            auto scores = session.evaluate(right, how.validation);
            REQUIRE(scores);
            CHECK(lowrank_tests::same_bits(before.mixer, model.mixer));
            CHECK(right.why);
            CHECK(right.parameters == 3 * 24);
            CHECK(right.relative_error == right.edits[0].size.relative_error);
            right.validation = summarize(*scores);
            CHECK(right.validation.correct > out.baseline.correct);
            search_candidate both{.edits = {of_head(3, 12), mixer}};
            REQUIRE(session.evaluate(both, how.validation));
            CHECK(both.parameters == 3 * 24 + 2 * (6 + 12));
            CHECK(both.relative_error > right.relative_error);
            out.candidates = {right, both};
            session.judge(out, 0, *std::move(scores));
            return {};
        });
        CHECK(found.winner == 0);
        CHECK(found.winning()->edits[0].validation.correct == found.best.correct);
        CHECK(found.selection->gained > 0);
    }
    CHECK(before.now());
}

namespace {

search_options every_kind_of_edit() {
    search_options how{.validation = {0, 90}, .held_out = {90, 200}, .fractions = {0.9, 0.6, 0.3, 0.25, 0.1}};
    how.groups = {1, 2};
    how.clusters = true;
    how.densities = {0.5};
    how.samples_per_call = 40;
    return how;
}

template <class R>
void check_same_search(const R& a, const R& b) {
    REQUIRE(a);
    REQUIRE(b);
    REQUIRE(a.candidates.size() == b.candidates.size());
    for (std::size_t i = 0; i < a.candidates.size(); ++i) {
        const auto &x = a.candidates[i], &y = b.candidates[i];
        CHECK(x.newest().what == y.newest().what);
        CHECK(x.relative_error == doctest::Approx(y.relative_error).epsilon(1e-12));  // written, or of the values
        CHECK(x.parameters == y.parameters);
        CHECK(x.validation.samples == y.validation.samples);
        CHECK(x.validation.correct == y.validation.correct);
        CHECK(x.validation.log_loss == doctest::Approx(y.validation.log_loss).epsilon(1e-10));
    }
    CHECK(a.held_out_after.correct == b.held_out_after.correct);
    CHECK(a.evaluated_samples == b.evaluated_samples);
    CHECK(a.evaluated_sample_layers == b.evaluated_sample_layers);
}

}  // namespace

TEST_CASE("searches end the same whether ranks come one at a time or together, and wherever the weights are") {
    planted_model<double> model(4, 200);
    const untouched<double> before{model};
    const auto how = every_kind_of_edit();
    const auto in_memory = model.searchable();
    for (const bool all_ranks : {false, true}) {
        CAPTURE(all_ranks);
        kept_elsewhere<double> engine{.model = model, .all_ranks = all_ranks};
        const auto elsewhere = engine.hooks();
        check_same_search(exhaustive_search(in_memory, how), exhaustive_search(elsewhere, how));
        CHECK(engine.rank_calls == (all_ranks ? 2 * 3 : 0));  // 90 samples in calls of 40, for each weight
        check_same_search(halving_search(in_memory, how), halving_search(elsewhere, how));
        const gradient_options two{.samples = 50, .matrices = 1, .probed = 2, .probe_samples = 20};
        check_same_search(gradient_search(in_memory, how, two), gradient_search(elsewhere, how, two));
        const auto a = greedy_search(in_memory, how, {.passes = 2, .width = 2});
        const auto b = greedy_search(elsewhere, how, {.passes = 2, .width = 2});
        check_same_search(a, b);
        CHECK(a.edits() == b.edits());
        CHECK_FALSE(a.edits().empty());
        CHECK_FALSE(engine.placed[0]);
        CHECK_FALSE(engine.placed[1]);
    }
    CHECK(before.now());
}

TEST_CASE("a search with all ranks at once goes on from its journal, wherever it was cut, to the same bits") {
    planted_model<float> model(5, 60);
    kept_elsewhere<float> engine{.model = model};
    const auto hooks = engine.hooks();
    search_options how{.validation = {0, 60}, .fractions = {0.9, 0.6, 0.3, 0.25, 0.1}};
    std::string text;
    const auto keep = [&](std::string_view line) {
        text += line;
        return status{};
    };
    search_journal whole(keep, "planted");
    how.log = &whole;
    const auto uncut = exhaustive_search(hooks, how);
    REQUIRE(uncut);
    const std::string all = text;
    for (std::size_t cut = 0; cut < all.size(); cut += 97) {
        CAPTURE(cut);
        auto log = search_journal::read(all.substr(0, cut), {}, "planted");
        REQUIRE(log);
        how.log = &*log;
        const auto again = exhaustive_search(hooks, how);
        REQUIRE(again);
        CHECK(again.winner == uncut.winner);
        for (std::size_t i = 0; i < uncut.candidates.size(); ++i) {
            CHECK(again.candidates[i].validation.log_loss == uncut.candidates[i].validation.log_loss);
        }
    }
    // Resumed with everything known, nothing is asked.
    const int asked = engine.rank_calls;
    auto log = search_journal::read(all, {}, "planted");
    REQUIRE(log);
    how.log = &*log;
    CHECK(exhaustive_search(hooks, how).evaluated_samples == 0);
    CHECK(engine.rank_calls == asked);
}

TEST_CASE("a model without its weights in memory must say how to read and place them") {
    planted_model<float> model(6, 20);
    kept_elsewhere<float> engine{.model = model};
    auto hooks = engine.hooks();
    hooks.override_weight = {};
    CHECK_THROWS_AS((void)exhaustive_search(hooks, {.validation = {0, 20}}), contract_violation);
    hooks.read = {};
    CHECK_THROWS_AS((void)exhaustive_search(hooks, {.validation = {0, 20}}), contract_violation);
    auto failing = engine.hooks();
    failing.evaluate_ranks = [](sample_range, lowrank::index, const nested_ranks<float>&, lowrank::index) {
        return result<std::vector<sample_scores>>(status{errc::io_failure, "the disk is gone"});
    };
    CHECK(exhaustive_search(failing, {.validation = {0, 20}}).why.code == errc::io_failure);
    failing.read = [](lowrank::index) { return result<row_matrix<float>>(status{errc::io_failure, "gone"}); };
    CHECK(exhaustive_search(failing, {.validation = {0, 20}}).why.code == errc::io_failure);
}

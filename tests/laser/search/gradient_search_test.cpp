// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/gradient_search.hpp>

#include <cmath>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/search/search.hpp>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::planted_model;
using lowrank_tests::untouched;

namespace {

const search_options gradient_how = {
    .validation = {0, 256}, .held_out = {256, 512}, .fractions = {0.9, 0.6, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01}};

}  // namespace

TEST_CASE_TEMPLATE("the gradient points at the planted matrix, and the scan finds the planted rank", T, float, double) {
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
        planted_model<T> model(seed, 512);
        const untouched<T> before{model};
        const auto asked = model.searchable();
        const auto all = exhaustive_search(asked, gradient_how);
        const auto few = gradient_search(asked, gradient_how,
                                         {.samples = 64, .matrices = 1, .scan = {.first_samples = 16, .finalists = 2}});
        REQUIRE(all);
        REQUIRE(few);
        CHECK(before.now());
        REQUIRE(few.winner);
        CHECK(few.edits() == all.edits());
        CHECK(few.best.correct == all.best.correct);
        CHECK(few.order.front() == 1);  // the head
        CHECK(few.candidates.size() == gradient_how.fractions.size());
        CHECK(5 * few.evaluated_sample_layers < 2 * all.evaluated_sample_layers);
        REQUIRE(few.scores.size() == 2);
        CHECK(few.scores[1].samples == 64);
        for (const auto& c : few.candidates) {
            REQUIRE(c.predicted);
            CHECK(*c.predicted == few.scores[1].loss_change(c.newest().rank));
        }
        // Unedited on all: 256 * 2 layers; backward: 64 * 3 * 2; the head's 7 ranks on 16, 2 on the rest; held out.
        CHECK(few.evaluated_sample_layers == 256 * 2 + 64 * 6 + 7 * 16 + 2 * 240 + 256 * 2 + 256);
        CHECK(few.held_out_sample_layers == 256 * 2 + 256);
    }
}

TEST_CASE("a probe corrects a gradient that points the wrong way") {
    planted_model<float> model(3, 512);
    const untouched<float> before{model};
    auto asked = model.searchable();
    // The gradients of the two weights, exchanged (the shapes agree): the screen now prefers the mixer.
    const auto honest = asked.gradients;
    asked.gradients = [&](sample_range r, const gradient_sink<float>& sink) {
        return honest(r, [&](lowrank::index w, const_column_view<float> x, const_column_view<float> dy,
                             std::span<const lowrank::index> starts) { sink(1 - w, x, dy, starts); });
    };
    gradient_options how{
        .samples = 64, .policy = screening_policy::taylor, .matrices = 1, .scan = {.first_samples = 16}};
    const auto misled = gradient_search(asked, gradient_how, how);
    REQUIRE(misled);
    how.probed = 2;
    how.probe_samples = 16;
    const auto found = gradient_search(asked, gradient_how, how);
    REQUIRE(found);
    CHECK(before.now());
    CHECK(found.order.size() == 2);
    CHECK(found.order.front() == 1);
    CHECK(to_text(found.edits().front()) == "keep 0-2 of 12 in head");
    how.probed = 1;  // only the first of the screen: nothing to exchange it with
    CHECK(gradient_search(asked, gradient_how, how).order == misled.order);
    how.probed = -1;
    CHECK_THROWS_AS((void)gradient_search(asked, gradient_how, how), contract_violation);
}

TEST_CASE("the predictions are the derivative of the loss along a small step to the truncated weight") {
    planted_model<double> model(4, 64);
    const auto asked = model.searchable();
    const auto found = gradient_search(asked, {.validation = {0, 64}}, {.samples = 64, .matrices = 2});
    REQUIRE(found);
    const double step = 1e-6;
    for (const lowrank::index w : {0, 1}) {
        auto& weight = w == 0 ? model.mixer : model.head;
        const row_matrix<double> original = weight;
        const auto s = svd(original).value();
        for (const lowrank::index k : {0, 3, 9}) {
            const matrix<double> removed = s.dropped(k).dense();
            weight = original - step * removed;
            const double up = summarize(model({0, 64})).log_loss;
            weight = original + step * removed;
            const double down = summarize(model({0, 64})).log_loss;
            weight = original;
            CHECK(found.scores[static_cast<std::size_t>(w)].loss_change(k) ==
                  doctest::Approx((up - down) / (2 * step)).epsilon(1e-5));
        }
    }
}

TEST_CASE("blocks and clusters of rows are tried beside the whole matrix") {
    planted_model<float> model(5, 512);
    auto how = gradient_how;
    how.fractions = {0.5, 0.25};
    how.groups = {1, 2, 4, 8, 100};  // more groups than rows are left out
    how.clusters = true;
    const auto found = gradient_search(model.searchable(), how, {.matrices = 1, .scan = {.first_samples = 256}});
    REQUIRE(found);
    CHECK(found.candidates.size() == 2 * (1 + 3 + 3));
    CHECK(found.candidates[0].predicted);
    CHECK_FALSE(found.candidates[2].predicted);
    CHECK(to_text(found.candidates[3].newest().what) == "keep 0 of 6 by 2 blocks in head");
    CHECK(std::holds_alternative<kept_clusters>(found.candidates[5].newest().what.kept));
    CHECK(to_text(found.edits().front()) == "keep 0-2 of 12 in head");  // the planted one is of the whole matrix
    for (const auto& c : found.candidates) {
        CHECK(c.relative_error >= 0);
        CHECK((c.parameters > 0) == (c.newest().rank > 0));
    }
}

TEST_CASE("weights whose factors do not fit together are screened in turn, with the same scores") {
    planted_model<float> model(6, 512);
    const auto asked = model.searchable();
    auto how = gradient_how;
    const auto roomy = gradient_search(asked, how);
    how.factor_bytes = 0;
    const auto tight = gradient_search(asked, how);
    REQUIRE(tight);
    CHECK(tight.order == roomy.order);
    CHECK(tight.edits() == roomy.edits());
    CHECK(tight.best.log_loss == roomy.best.log_loss);
    for (std::size_t w = 0; w < 2; ++w) {
        CHECK(tight.scores[w].change == roomy.scores[w].change);
    }
    CHECK(tight.evaluated_sample_layers > roomy.evaluated_sample_layers);  // a backward pass for each
}

TEST_CASE("a gradient search killed at any evaluation resumes to the same result") {
    planted_model<float> model(7, 512);
    const untouched<float> before{model};
    std::string file;
    const auto keep = [&](std::string_view line) {
        file += line;
        return status{};
    };
    auto asked = model.searchable();
    lowrank::index calls = 0, stop_at = 1 << 30;
    asked.evaluate_from_layer = [&](sample_range r, lowrank::index) -> result<sample_scores> {
        if (++calls > stop_at) {
            return status{errc::io_failure, "killed"};
        }
        return model(r);
    };
    auto how = gradient_how;
    how.samples_per_call = 1000;
    const gradient_options scan = {
        .samples = 64, .matrices = 1, .probed = 2, .probe_samples = 4, .scan = {.first_samples = 16, .finalists = 2}};
    const auto whole = gradient_search(asked, how, scan);
    REQUIRE(whole);
    const auto total = calls;
    for (lowrank::index stop = 0; stop < total; stop += 3) {
        file.clear();
        search_journal log(keep);
        how.log = &log;
        calls = 0;
        stop_at = stop;
        CHECK_FALSE(gradient_search(asked, how, scan));
        CHECK(before.now());
        auto resumed = search_journal::read(file, keep).value();
        how.log = &resumed;
        calls = 0;
        stop_at = 1 << 30;
        const auto rest = gradient_search(asked, how, scan);
        REQUIRE(rest);
        CHECK(calls == total - stop);
        CHECK(rest.edits() == whole.edits());
        CHECK(rest.best.log_loss == whole.best.log_loss);
        CHECK(rest.scores[1].change == whole.scores[1].change);
    }
}

TEST_CASE("a gradient search needs the hook, and hands on its failure") {
    planted_model<float> model(8, 64);
    auto asked = model.searchable();
    asked.gradients = [](sample_range, const gradient_sink<float>&) {
        return status{errc::io_failure, "no gradient today"};
    };
    CHECK(gradient_search(asked, {.validation = {0, 64}}).why.message == "gradient_search: no gradient today");
    asked.gradients = {};
    CHECK_THROWS_AS((void)gradient_search(asked, {.validation = {0, 64}}), contract_violation);
}

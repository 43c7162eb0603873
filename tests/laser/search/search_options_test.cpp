// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/search_options.hpp>

#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/laser/search/search.hpp>

using namespace lowrank;

namespace {

/// The loss of one weight's truncation by its rank, as a curve: the evaluator reads the rank off the weight.
struct curve {
    row_matrix<double> w = vector<double>::LinSpaced(32, 32, 1).asDiagonal();
    std::vector<double> loss_at;
    mutable lowrank::index asked = 0;

    [[nodiscard]] sample_scores operator()(sample_range r) const {
        ++asked;
        const auto rank = static_cast<std::size_t>((w.diagonal().array() > 0.5).count());
        sample_scores s;
        for (auto i = r.begin; i < r.end; ++i) {
            s.add(false, loss_at[rank]);
        }
        return s;
    }
};

}  // namespace

TEST_CASE("golden section finds the best fraction of every curve that falls, then rises, with fewer evaluations") {
    for (int lowest = 0; lowest <= 32; ++lowest) {
        CAPTURE(lowest);
        curve model;
        for (int k = 0; k <= 32; ++k) {
            model.loss_at.push_back(1 + 0.01 * std::abs(k - lowest));
        }
        search_options how{.validation = {0, 4}};
        how.fractions.clear();
        for (int k = 31; k >= 0; --k) {
            how.fractions.push_back(k / 32.0);
        }
        const std::vector<named_weight<double>> weights = {{"w", model.w}};
        const evaluator evaluate = [&](sample_range r) { return model(r); };
        const auto all = exhaustive_search<double>({.weights = weights, .evaluate = evaluate}, how);
        const auto asked_all = model.asked;
        model.asked = 0;
        const auto few = exhaustive_search<double>({.weights = weights, .evaluate = evaluate}, how, {.unimodal = true});
        REQUIRE(all);
        REQUIRE(few);
        CHECK(few.best.log_loss == all.best.log_loss);
        CHECK(few.edits() == all.edits());
        CHECK(model.asked <= 15);
        CHECK(asked_all == 33);
    }
}

TEST_CASE("a result hands out its winner's edits, and none without a winner") {
    const search_result none;
    CHECK(none.winning() == nullptr);
    CHECK(none.edits().empty());
    search_result one;
    const edit of_head{"head", kept_components{component_set::first(3), 12}};
    one.candidates = {{}, {.name = "head", .edits = {{.what = of_head, .weight = 1}}}};
    one.winner = 1;
    CHECK(one.winning()->newest().weight == 1);
    CHECK(one.edits() == std::vector<edit>{of_head});
}

static_assert(!std::is_default_constructible_v<search_options>, "the validation samples must be given");

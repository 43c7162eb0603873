// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/group_search.hpp>
#include <lowrank/laser/search/search.hpp>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::kept_elsewhere;
using lowrank_tests::planted_model;
using lowrank_tests::untouched;

namespace {

/// Three weights in two layers; of 10 samples 4 are right, 9 with both `mlp` matrices at rank 2, 2 with one of them.
struct paired_mlp {
    row_matrix<float> up, down, query;
    paired_mlp() : up(row_matrix<float>::Zero(4, 6)), down(row_matrix<float>::Zero(8, 4)), query(up) {
        for (lowrank::index i = 0; i < 4; ++i) {
            up(i, i) = down(i, i) = query(i, i) = static_cast<float>(4 - i);
        }
    }
    [[nodiscard]] search_model<float> searchable() {
        search_model<float> out{.weights = {{"0.mlp.up", up}, {"0.attn.query", query}, {"1.mlp.down", down}},
                                .layers = 2,
                                .layer_of = {0, 0, 1}};
        out.evaluate = [this](sample_range r) -> result<sample_scores> {
            const auto rank_2 = [](const row_matrix<float>& m) { return (m.array().abs() > 0.5F).count() == 2; };
            const int cut = (rank_2(up) ? 1 : 0) + (rank_2(down) ? 1 : 0);
            sample_scores s;
            for (lowrank::index i = r.begin; i < r.end; ++i) {
                s.add(i % 10 < (cut == 2 ? 9 : cut == 1 ? 2 : 4), 1.0);
            }
            return s;
        };
        return out;
    }
};

std::string kind_of_weight(const std::string& name, lowrank::index) {
    return name.find(".mlp.") != std::string::npos ? "mlp" : name.find(".attn.") != std::string::npos ? "attn" : "";
}

}  // namespace

TEST_CASE("weights are grouped by the name they are given") {
    paired_mlp model;
    const auto m = model.searchable();
    const auto kinds = group_weights(m, kind_of_weight);
    REQUIRE(kinds.size() == 2);
    CHECK(kinds[0].name == "mlp");
    CHECK(kinds[0].weights == std::vector<lowrank::index>{0, 2});
    CHECK(kinds[1].weights == std::vector<lowrank::index>{1});
    const auto layers = group_weights(m, [](const std::string&, lowrank::index layer) {
        return layer == 0 ? std::string("layer 0") : std::string();
    });
    REQUIRE(layers.size() == 1);
    CHECK(layers[0].weights == std::vector<lowrank::index>{0, 1});
}

TEST_CASE("an edit of a group helps where none of its matrices does alone") {
    paired_mlp model;
    const row_matrix<float> up = model.up, down = model.down;
    const auto m = model.searchable();
    const search_options how{.validation = {0, 20}, .held_out = {20, 120}, .fractions = {0.8, 0.5, 0.6, 0.2}};
    CHECK_FALSE(exhaustive_search(m, how).winner);

    const auto groups = group_weights(m, kind_of_weight);
    const auto found = group_search<float>(m, groups, how);
    REQUIRE(found);
    REQUIRE(found.winner);
    CHECK(found.candidates.size() == 8);
    const auto& best = *found.winning();
    CHECK(best.name == "mlp");
    CHECK(best.newest().fraction == 0.5);
    CHECK(best.parameters == 2 * (4 + 6) + 2 * (8 + 4));
    CHECK(found.baseline.correct == 8);
    CHECK(found.best.correct == 18);
    const auto edits = found.edits();
    REQUIRE(edits.size() == 2);
    CHECK(to_text(edits[0]) == "keep 0-1 of 4 in 0.mlp.up");
    CHECK(to_text(edits[1]) == "keep 0-1 of 4 in 1.mlp.down");
    CHECK(found.held_out_before.correct == 40);
    CHECK(found.held_out_after.correct == 90);
    REQUIRE(found.evidence);
    CHECK(found.evidence->gained == 50);
    REQUIRE(found.selection);
    CHECK(found.selection->gained == 10);
    CHECK(best.relative_error == doctest::Approx(std::sqrt(5.0 / 30.0)));
    // 0.5 and 0.6 of rank 4 are both rank 2, and asked once: three ranks of two groups, the unedited model; the report.
    CHECK(found.evaluated_samples == 7 * 20 + 2 * 100);
    CHECK(found.held_out_sample_layers == 2 * 100 * 2);
    CHECK(lowrank_tests::same_bits(up, model.up));
    CHECK(lowrank_tests::same_bits(down, model.down));
}

TEST_CASE("a group of one weight is searched as that weight") {
    planted_model<float> model(3, 400);
    const untouched<float> before{model};
    const search_options how{.validation = {0, 100}, .held_out = {100, 400}, .fractions = {0.5, 0.25}};
    const auto m = model.searchable();
    const auto alone = exhaustive_search(m, how);
    const auto each = group_weights(m, [](const std::string& name, lowrank::index) { return name; });
    const auto found = group_search<float>(m, each, how);
    REQUIRE(found);
    REQUIRE(alone.winner);
    REQUIRE(found.winner);
    CHECK(found.edits() == alone.edits());
    REQUIRE(found.candidates.size() == alone.candidates.size());
    for (std::size_t i = 0; i < alone.candidates.size(); ++i) {
        CHECK(found.candidates[i].validation.correct == alone.candidates[i].validation.correct);
        CHECK(found.candidates[i].validation.log_loss == alone.candidates[i].validation.log_loss);
        CHECK(found.candidates[i].parameters == alone.candidates[i].parameters);
        CHECK(found.candidates[i].relative_error == doctest::Approx(alone.candidates[i].relative_error));
    }
    CHECK(found.evaluated_sample_layers == alone.evaluated_sample_layers);
    CHECK(before.now());

    kept_elsewhere<float> engine{model, false};
    const auto placed = group_search<float>(engine.hooks(), each, how);
    REQUIRE(placed);
    CHECK(placed.winner == found.winner);
    CHECK(!engine.placed[0]);
    CHECK(!engine.placed[1]);
}

TEST_CASE("a group search goes on from its journal and may be stopped") {
    paired_mlp model;
    const auto m = model.searchable();
    const auto groups = group_weights(m, kind_of_weight);
    search_options how{.validation = {0, 20}, .held_out = {20, 40}, .fractions = {0.5, 0.25}};
    std::string text;
    const auto keep = [&](std::string_view line) {
        text += line;
        return status{};
    };
    search_journal log(keep);
    how.log = &log;
    const auto whole = group_search<float>(m, groups, how);
    REQUIRE(whole);
    auto known = search_journal::read(text, keep);
    REQUIRE(known);
    how.log = &*known;
    const auto again = group_search<float>(m, groups, how);
    REQUIRE(again);
    CHECK(again.evaluated_samples == 0);
    CHECK(again.winner == whole.winner);
    CHECK(again.held_out_after.correct == whole.held_out_after.correct);

    how.log = nullptr;
    int calls = 0;
    how.on_progress = [&](const progress&) { return ++calls < 4; };
    const row_matrix<float> up = model.up;
    CHECK(group_search<float>(m, groups, how).why.code == errc::cancelled);
    CHECK(lowrank_tests::same_bits(up, model.up));
}

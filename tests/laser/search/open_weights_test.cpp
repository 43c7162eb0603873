// SPDX-License-Identifier: MIT
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>
#include <lowrank/laser/search/detail/open_weights.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/group_search.hpp>

#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::planted_model;
using lowrank_tests::untouched;

TEST_CASE("opened weights stay while they fit, and the least recently used goes first") {
    row_matrix<float> a = row_matrix<float>::Identity(8, 8), b = a, c = a;
    search_model<float> model;
    model.weights = {{"a", a}, {"b", b}, {"c", c}};
    detail::editor_cache<float> one(model, 0);
    const std::size_t bytes = one.bytes_of(0);
    const auto decompose = [](detail::editor_cache<float>& editors, lowrank::index w) {
        CHECK(editors.get(w).value()->whole());
    };
    decompose(one, 0);
    CHECK(bytes == one.get(0).value()->bytes());
    decompose(one, 0);
    CHECK(one.factorizations() == 1);  // the current one always stays
    decompose(one, 1);
    decompose(one, 0);
    CHECK(one.factorizations() == 3);

    detail::editor_cache<float> two(model, 2 * bytes);
    decompose(two, 0);
    decompose(two, 1);
    decompose(two, 0);
    decompose(two, 2);  // b goes
    decompose(two, 0);
    CHECK(two.factorizations() == 3);
    decompose(two, 1);
    CHECK(two.factorizations() == 4);
    c(0, 0) = std::numeric_limits<float>::quiet_NaN();
    detail::editor_cache<float> broken(model, 0);
    CHECK(broken.get(2).error().code == errc::non_finite);
}

TEST_CASE("a model that brings leading parts of its weights is searched without decomposing them") {
    row_matrix<float> a = row_matrix<float>::Random(12, 9);
    const row_matrix<float> before = a;
    search_model<float> model;
    model.weights = {{"a", a}};
    model.decompose = [](lowrank::index, const_weight_view<float> values) { return truncated_svd(values, 4); };
    detail::editor_cache<float> editors(model, 0);
    {
        detail::edits_in_place<float> in_place(model, editors);
        search_candidate low{.edits = {{.what = {"a", kept_components{component_set::first(3), 9}}, .weight = 0}}};
        REQUIRE(in_place.put(low));
        CHECK(editors.factorizations() == 0);
        const auto best = svd(before);
        CHECK((a - best.truncate(3).dense()).norm() < 1e-5F);
        CHECK(low.edits[0].size.removed_norm == doctest::Approx(best.error_at(3)).epsilon(1e-5));
        CHECK(low.edits[0].size.weight_norm == doctest::Approx(best.norm()).epsilon(1e-5));
        search_candidate high{.edits = {{.what = {"a", kept_components{component_set::first(7), 9}}, .weight = 0}}};
        REQUIRE(in_place.put(high));
        CHECK(editors.factorizations() == 1);  // that needs more than the leading 4
        CHECK((a - best.truncate(7).dense()).norm() < 1e-5F);
    }
    CHECK(a == before);
    model.decompose = [](lowrank::index, const_weight_view<float>) {
        return svd(row_matrix<float>(row_matrix<float>::Ones(12, 9)));
    };
    detail::editor_cache<float> wrong(model, 0);
    CHECK(wrong.get(0).error().code == errc::mismatch);
}

TEST_CASE("edits in place are taken back, and a fingerprint is of names and bits") {
    planted_model<float> model(1, 4);
    const untouched<float> before{model};
    const auto weights = model.weights();
    const std::span<const named_weight<float>> all(weights);
    const auto print = detail::search_fingerprint(all);
    {
        const auto asked = model.searchable();
        detail::editor_cache<float> editors(asked, 0);
        detail::edits_in_place<float> in_place(asked, editors);
        search_candidate both{.edits = {{.what = {"mixer", kept_components{{}, 12}}, .weight = 0},
                                        {.what = {"head", kept_components{component_set::first(3), 12}}, .weight = 1}}};
        REQUIRE(in_place.put(both));
        CHECK(both.edits[0].size.relative_error == doctest::Approx(1));
        CHECK(both.edits[1].size.parameters == 3 * 24);
        CHECK(model.mixer.isZero(0));
        CHECK(detail::search_fingerprint(all) != print);
        search_candidate first{.edits = {both.edits[0]}};
        REQUIRE(in_place.put(first));
        CHECK(model.mixer.isZero(0));
        CHECK(lowrank_tests::same_bits(before.head, model.head));
    }
    CHECK(before.now());
    CHECK(detail::search_fingerprint(all) == print);
    const std::vector<named_weight<float>> renamed = {{"other", model.mixer}, {"head", model.head}};
    CHECK(detail::search_fingerprint(std::span<const named_weight<float>>(renamed)) != print);
}

TEST_CASE(
    "after an edit that does not fit its stored type nothing stays edited, and the next ones are as if it never was") {
    // The rank-1 part of the second weight overshoots the largest half.
    row_matrix<half> benign(2, 2), wide(2, 2);
    benign << half(1.0F), half(2.0F), half(3.0F), half(4.0F);
    wide << half(65504.0F), half(65504.0F), half(65504.0F), half(60000.0F);
    const row_matrix<half> benign_before = benign, wide_before = wide;
    const auto scores = [&](sample_range r) -> result<sample_scores> {
        sample_scores out;
        for (lowrank::index i = r.begin; i < r.end; ++i) {
            out.add(!lowrank_tests::same_bits(benign, benign_before), static_cast<double>(benign(0, 0)));
        }
        return out;
    };
    const search_model<half> model{.weights = {{"benign", benign}, {"wide", wide}}, .evaluate = scores};
    const search_options how{.validation = {0, 4}, .held_out = {4, 8}, .fractions = {0.5}};
    const auto untouched_now = [&] {
        return lowrank_tests::same_bits(benign, benign_before) && lowrank_tests::same_bits(wide, wide_before);
    };
    detail::editor_cache<half> editors(model, 1 << 20);
    {
        detail::edits_in_place<half> in_place(model, editors);
        const edit first{"benign", kept_components{component_set::first(1), 2}};
        const edit second{"wide", kept_components{component_set::first(1), 2}};
        search_candidate both{.edits = {{.what = first, .weight = 0}, {.what = second, .weight = 1}}};
        REQUIRE(in_place.put(both));
        CHECK(both.why.code == errc::non_finite);
        CHECK(lowrank_tests::same_bits(wide, wide_before));
        search_candidate none;
        REQUIRE(in_place.put(none));
        CHECK(untouched_now());
    }
    // In a group the candidate fails; what is reported on held-out samples is the unedited model.
    const std::vector<weight_group> groups = {{"both", {0, 1}}};
    const auto grouped = group_search<half>(model, groups, how);
    REQUIRE(grouped);
    CHECK(grouped.candidates.at(0).why.code == errc::non_finite);
    CHECK_FALSE(grouped.winner);
    CHECK(grouped.held_out_before.correct == 0);
    CHECK(grouped.held_out_after.correct == 0);
    CHECK(untouched_now());
    // A greedy search keeps the first edit, fails at the second, and reports on the first alone.
    const auto kept = greedy_search(model, how);
    REQUIRE(kept);
    REQUIRE(kept.edits().size() == 1);
    CHECK(kept.edits()[0].weight == "benign");
    CHECK(kept.held_out_before.correct == 0);
    CHECK(kept.held_out_after.correct == 4);
    CHECK(untouched_now());
}

// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/detail/open_weights.hpp>

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
    const std::vector<named_weight<float>> weights = {{"a", a}, {"b", b}, {"c", c}};
    const std::span<const named_weight<float>> all(weights);
    detail::editor_cache<float> one(all, 0);
    const std::size_t bytes = one.bytes_of(0);
    CHECK(bytes == one.get(0).value()->bytes());
    (void)one.get(0);
    CHECK(one.factorizations() == 1);  // the current one always stays
    (void)one.get(1);
    (void)one.get(0);
    CHECK(one.factorizations() == 3);

    detail::editor_cache<float> two(all, 2 * bytes);
    (void)two.get(0);
    (void)two.get(1);
    (void)two.get(0);
    (void)two.get(2);  // b goes
    (void)two.get(0);
    CHECK(two.factorizations() == 3);
    (void)two.get(1);
    CHECK(two.factorizations() == 4);
    c(0, 0) = std::numeric_limits<float>::quiet_NaN();
    detail::editor_cache<float> broken(all, 0);
    CHECK(broken.get(2).error().code == errc::non_finite);
}

TEST_CASE("edits in place are taken back, and a fingerprint is of names and bits") {
    planted_model<float> model(1, 4);
    const untouched<float> before{model};
    const auto weights = model.weights();
    const std::span<const named_weight<float>> all(weights);
    const auto print = detail::search_fingerprint(all);
    {
        const auto asked = model.searchable();
        detail::editor_cache<float> editors(asked.weights, 0);
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

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

TEST_CASE("guards give bits back, and a fingerprint is of names and bits") {
    planted_model<float> model(1, 4);
    const untouched<float> before{model};
    const auto weights = model.weights();
    const std::span<const named_weight<float>> all(weights);
    const auto print = detail::search_fingerprint(all);
    {
        const detail::bits_guard<float> guard(weight_view<float>(model.head));
        const auto editor = weight_editor<float>::open(weights[0]).value();
        const detail::restore_guard<float> other(weight_view<float>(model.mixer), editor);
        model.head.setZero();
        model.mixer.setZero();
        CHECK(detail::search_fingerprint(all) != print);
    }
    CHECK(before.now());
    CHECK(detail::search_fingerprint(all) == print);
    const std::vector<named_weight<float>> renamed = {{"other", model.mixer}, {"head", model.head}};
    CHECK(detail::search_fingerprint(std::span<const named_weight<float>>(renamed)) != print);
}

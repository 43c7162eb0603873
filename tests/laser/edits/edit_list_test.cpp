// SPDX-License-Identifier: MIT
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit_list.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "laser/planted_model.hpp"

using namespace lowrank;

TEST_CASE_TEMPLATE("edits apply in order, stack, and come off to the same bits", T, float, double, bfloat16) {
    lowrank_tests::planted_model<T> model(1, 1);
    const lowrank_tests::untouched<T> before{model};
    const auto weights = model.weights();
    const std::vector<edit> edits = {{"head", kept_components{component_set::first(7), 12}},
                                     {"mixer", kept_components{component_set::band(2, 12), 12}},
                                     {"head", kept_components{component_set::first(3), 12}}};
    const auto done = apply_edits<T>(weights, edits);
    REQUIRE(done);
    CHECK(done->size() == 3);
    const auto s = svd(model.head).value();
    CHECK(s.relative_error(3) < (std::is_same_v<T, bfloat16> ? 2e-2 : 1e-5));
    CHECK(static_cast<double>(svd(model.mixer).value().s(10)) < (std::is_same_v<T, bfloat16> ? 2e-2 : 1e-5));
    CHECK_FALSE(before.now());
    REQUIRE(undo_edits<T>(weights, *done));
    CHECK(before.now());
}

TEST_CASE("a list that cannot be applied changes nothing") {
    lowrank_tests::planted_model<float> model(2, 1);
    const lowrank_tests::untouched<float> before{model};
    const auto weights = model.weights();
    const edit good{"head", kept_components{component_set::first(3), 12}};
    CHECK(apply_edits<float>(weights, {good, {"tail", kept_components{component_set::first(1), 12}}}).error().code ==
          errc::not_found);
    CHECK(before.now());
    CHECK(apply_edits<float>(weights, {good, {"mixer", kept_components{component_set::first(1), 13}}}).error().code ==
          errc::mismatch);
    CHECK(before.now());
    CHECK(apply_edits<float>(weights, {}).value().empty());
}

TEST_CASE("undo stops at a weight that was modified since, and names it") {
    lowrank_tests::planted_model<float> model(3, 1);
    const auto weights = model.weights();
    const auto done = apply_edits<float>(weights, {{"head", kept_components{component_set::first(3), 12}}}).value();
    model.head(0, 0) += 1;
    const auto why = undo_edits<float>(weights, done);
    CHECK(why.code == errc::mismatch);
    CHECK(why.message.find("head") != std::string::npos);
}

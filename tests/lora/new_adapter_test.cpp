// SPDX-License-Identifier: MIT
#include <lowrank/lora/new_adapter.hpp>

#include <set>
#include <string>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/kinds/list.hpp>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the layers say what kinds with something in common need to know") {
    adapted_layers all;
    all.add(12, 8);
    all.add(4, 20);
    CHECK(all.max_out == 12);
    CHECK(all.max_in == 20);
    CHECK(all.common_in == 4);
    CHECK(all.common_out == 4);
    CHECK(all.largest_rank == 3);  // of 4 x 20; of 12 x 8 it is 4
    CHECK(all.common_size() == 4);
}

TEST_CASE("fresh adapters of every kind leave the layer as it is, fit it, and honour or refuse a dropout") {
    const row_matrix<double> w = random_weight<double>(12, 8, 1, 0.4);
    adapted_layers all;
    all.add(12, 8);
    std::set<std::string> with_dropout;
    for (const auto& kind : makeable_kinds<double>()) {
        CAPTURE(kind.name);
        CHECK(kind.learning_rate > 0);
        const auto make = kind.make(all, {.r = 4, .lora_alpha = 8});
        REQUIRE(make.has_value());
        any_adapter<double> a = (*make)({.base = as_operator(w), .number = 3});
        a.refresh(as_operator(w));
        CHECK(a.kind() == kind.name);
        CHECK(a.rows() == 12);
        CHECK(a.cols() == 8);
        CHECK(relative_diff(adapted_weight(a, w, 1.0), matrix<double>(w)) < 1e-12);
        const auto dropping = kind.make(all, {.r = 4, .lora_dropout = 0.25});
        if (dropping.has_value()) {
            CHECK((*dropping)({.base = as_operator(w)}).dropout() == 0.25);
            with_dropout.insert(std::string(kind.name));
        } else {
            CHECK(dropping.error().code == errc::unsupported);
            CHECK(dropping.error().message.find(kind.name) != std::string::npos);
        }
    }
    CHECK(with_dropout == std::set<std::string>{"adalora", "bdlora", "delora", "dora", "gralora", "lora", "qalora",
                                                "tinylora", "vblora"});
    CHECK(find_makeable_kind<double>("ia3") != nullptr);
    CHECK(find_makeable_kind<double>("alora") == nullptr);
    CHECK(find_makeable_kind<double>("nothing") == nullptr);
}

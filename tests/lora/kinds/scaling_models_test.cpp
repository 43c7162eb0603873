// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/detail/scaling_models.hpp>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("a new adapter that scales or turns changes nothing, and one of a wrong size is refused") {
    const row_matrix<double> w = random_weight<double>(some_out, some_in, 1);
    const matrix<double> plain = w;
    for (any_adapter<double> a :
         {any_adapter<double>(make_dora(w, {.r = 2})), any_adapter<double>(make_ia3<double>(12, 8)),
          any_adapter<double>(make_ia3<double>(12, 8, true))}) {
        CAPTURE(a.kind());
        CHECK_FALSE(a.additive());
        a.refresh(as_operator(w));
        CHECK(relative_diff(adapted_weight(a, w, 1.0), plain) < 1e-14);
    }
    auto dora = make_dora(w, {.r = 2});
    any_adapter<double> unused = dora;
    workspace ws;
    matrix<double> y = matrix<double>::Zero(12, 1);
    CHECK_THROWS_AS(unused.add_product(as_operator(w), 1, random_matrix<double>(8, 1, 1), y, ws), contract_violation);
    dora.magnitude = vector<double>::Ones(5);
    CHECK_THROWS_AS(any_adapter<double>{dora}, contract_violation);
    auto ia3 = make_ia3<double>(12, 8);
    ia3.is_feedforward = true;
    CHECK_THROWS_AS(any_adapter<double>{ia3}, contract_violation);
}

TEST_CASE("the row norms of a base that only multiplies are those of its entries") {
    const row_matrix<float> w = random_weight<float>(7, 150, 1);
    CHECK(relative_diff(squared_row_norms_of_operator(as_operator(w)), squared_row_norms(w)) < 1e-6);
}

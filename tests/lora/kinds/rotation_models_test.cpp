// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/detail/rotation_models.hpp>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("rotations and HiRA through one type are what their own layers compute") {
    const row_matrix<double> w = random_weight<double>(some_out, some_in, 1, 0.4);
    int seen = 0;
    const auto check = [&](const any_adapter<double>& a, const matrix<double>& want) {
        CAPTURE(a.kind());
        CHECK(relative_diff(adapted_weight(a, w, 1.0), want) < 1e-13);
        ++seen;
    };
    const matrix<double> unit = matrix<double>::Identity(some_in, some_in);
    for (const auto& a : some_adapters<double>(w)) {
        if (const auto* oft = a.get<oft_adapter<double>>()) {
            check(a, apply(rotate(any_operator<double>(as_operator(w)), *oft), unit));
        } else if (const auto* boft = a.get<boft_adapter<double>>()) {
            check(a, apply(rotate(any_operator<double>(as_operator(w)), *boft), unit));
        } else if (const auto* hra = a.get<hra_adapter<double>>()) {
            check(a, apply(rotate(any_operator<double>(as_operator(w)), *hra), unit));
        } else if (const auto* hira = a.get<hira_adapter<double>>()) {
            check(a, w + w.cwiseProduct(hira->hira_B * hira->hira_A));
        } else if (const auto* miss = a.get<miss_adapter<double>>()) {
            check(a, w + apply(miss->map(), unit));
        }
    }
    CHECK(seen == 5);
}

TEST_CASE("a rotation learns the outputs of its layer from the first refresh") {
    any_adapter<float> a = make_oft<float>(5, 8, {.block_size = 4});
    CHECK(a.rows() == 0);
    const row_matrix<float> w = random_weight<float>(5, 8, 1);
    a.refresh(as_operator(w));
    CHECK(a.rows() == 5);
    CHECK(relative_diff(adapted_weight(a, w, 1.0F), matrix<double>(w.cast<double>())) < 1e-6);
}

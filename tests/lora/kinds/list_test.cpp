// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/list.hpp>

#include <set>
#include <string>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("every kind of the list has a name of its own and is tried by the tests of any_adapter") {
    std::set<std::string> listed;
    for_each_adapter_kind<double>([&]<class A>() { CHECK(listed.insert(std::string(adapter_kind<A>::name)).second); });
    std::set<std::string> tried;
    for (const auto& a : some_adapters<double>(random_weight<double>(some_out, some_in, 1))) {
        tried.insert(std::string(a.kind()));
    }
    CHECK(listed == tried);
}

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

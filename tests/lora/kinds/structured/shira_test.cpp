// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/kinds/structured/shira.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(operator_adapter<shira_adapter<float>>);

namespace {

/// Twelve entries of a 5 x 7 weight, one of them named twice.
shira_adapter<double> some_shira() {
    shira_adapter<double> a{.out = 5, .in = 7};
    a.shira_indices.resize(2, 12);
    for (lowrank::index k = 0; k < 12; ++k) {
        a.shira_indices(0, k) = static_cast<std::int32_t>(k == 11 ? 0 : k * 3 % 5);
        a.shira_indices(1, k) = static_cast<std::int32_t>(k == 11 ? 0 : k * 5 % 7);
    }
    a.shira_weight = random_matrix<double>(12, 1, 1);
    return a;
}

matrix<double> dense(const shira_adapter<double>& a) {
    matrix<double> d = matrix<double>::Zero(a.out, a.in);
    for (lowrank::index k = 0; k < a.shira_weight.size(); ++k) {
        d(a.shira_indices(0, k), a.shira_indices(1, k)) += a.shira_weight(k);
    }
    return d;
}

}  // namespace

TEST_CASE("the sparse change is multiplied with, transposed and added as what it is; entries named twice add up") {
    const auto a = some_shira();
    const matrix<double> d = dense(a);
    const auto x = random_matrix<double>(7, 4, 2);
    const auto g = random_matrix<double>(5, 4, 3);
    workspace ws;
    matrix<double> y = matrix<double>::Zero(5, 4);
    a.add_product(0.5, x, y, ws);
    CHECK(relative_diff(y, matrix<double>(0.5 * d * x)) < 1e-14);
    matrix<double> back = matrix<double>::Zero(7, 4);
    a.add_transposed_product(2, g, back, ws);
    CHECK(relative_diff(back, matrix<double>(2 * d.transpose() * g)) < 1e-14);
    const matrix<double> w = random_matrix<double>(5, 7, 4);
    CHECK(relative_diff(changed(a.change(), w), matrix<double>(w + d)) < 1e-14);

    auto gradient = detail::with_zero_parameters(a);
    a.backward(x, g, gradient, nullptr, ws);
    for (lowrank::index k = 0; k < 12; ++k) {
        CHECK(gradient.shira_weight(k) ==
              doctest::Approx(g.row(a.shira_indices(0, k)).dot(x.row(a.shira_indices(1, k)))));
    }
}

TEST_CASE("a new adapter has as many entries as the factors of LoRA, all different, and changes nothing") {
    const auto a = make_shira<float>(12, 8, {.r = 3, .seed = 7});
    CHECK(a.shira_weight.size() == 60);
    CHECK(detail::all_zero(a.shira_weight));
    matrix<double> d = matrix<double>::Zero(12, 8);
    for (lowrank::index k = 0; k < 60; ++k) {
        d(a.shira_indices(0, k), a.shira_indices(1, k)) += 1;
        if (k > 0) {  // row by row
            CHECK(a.shira_indices(0, k) * 8 + a.shira_indices(1, k) >
                  a.shira_indices(0, k - 1) * 8 + a.shira_indices(1, k - 1));
        }
    }
    CHECK(d.maxCoeff() == 1);
    CHECK_THROWS_AS((void)make_shira<float>(12, 8, {.r = 5}), contract_violation);
}

TEST_CASE("entries outside of the weight are refused before they are used") {
    auto a = some_shira();
    a.shira_indices(1, 3) = 7;
    CHECK_THROWS_AS(any_adapter<double>{a}, contract_violation);
    a.shira_indices(1, 3) = -1;
    CHECK_THROWS_AS(any_adapter<double>{a}, contract_violation);
    a = some_shira();
    a.shira_weight.conservativeResize(11);
    CHECK_THROWS_AS(any_adapter<double>{a}, contract_violation);
}

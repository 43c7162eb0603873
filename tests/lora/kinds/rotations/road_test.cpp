// SPDX-License-Identifier: MIT
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/kinds/rotations/road.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// R as a matrix, as the formula says, from c and s of each output.
matrix<double> rotation(const road_adapter<double>& a) {
    const lowrank::index g = a.group_size;
    const lowrank::index h = g / 2;
    const auto theta = [&](lowrank::index at) { return a.road_theta(at); };
    matrix<double> r = matrix<double>::Zero(a.out(), a.out());
    for (lowrank::index group = 0; group < a.out() / g; ++group) {
        for (lowrank::index j = 0; j < h; ++j) {
            for (const lowrank::index within : {j, j + h}) {
                const lowrank::index at_c = a.variant == 1   ? group * h + j
                                            : a.variant == 2 ? group * g + within
                                                             : 2 * g * group + within;
                const lowrank::index at_s = a.variant == 4 ? at_c + g : at_c;
                const lowrank::index o = group * g + within;
                const lowrank::index other = within < h ? o + h : o - h;
                r(o, o) = a.road_alpha(at_c) * std::cos(theta(at_c));
                r(o, other) = (within < h ? -1 : 1) * a.road_alpha(at_s) * std::sin(theta(at_s));
            }
        }
    }
    return r;
}

}  // namespace

TEST_CASE("pairs of outputs are turned as the formula says, in every variant, and merging turns them too") {
    const row_matrix<double> w = random_weight<double>(12, 5, 1);
    const matrix<double> x = random_matrix<double>(5, 4, 2);
    for (const lowrank::index variant : {1, 2, 4}) {
        for (const lowrank::index group : {2, 4, 6, 12}) {
            CAPTURE(variant);
            CAPTURE(group);
            auto a = make_road<double>(12, {.variant = variant, .group_size = group});
            CHECK(a.out() == 12);
            CHECK(relative_diff(rotation(a), matrix<double>(matrix<double>::Identity(12, 12))) == 0);
            a.road_theta = random_matrix<double>(6 * variant, 1, 3);
            a.road_alpha = random_matrix<double>(6 * variant, 1, 4);
            const matrix<double> want = rotation(a) * w;
            any_adapter<double> any = a;
            any.refresh(as_operator(w));
            matrix<double> y = matrix<double>::Zero(12, 4);
            workspace ws;
            any.add_product(as_operator(w), 1, x, y, ws);
            CHECK(relative_diff(y, matrix<double>(want * x)) < 1e-13);
            CHECK(relative_diff(changed(any.change(), w), want) < 1e-13);
        }
    }
}

TEST_CASE("a merge of a pair that loses a dimension is undone by its receipt") {
    auto a = make_road<float>(4, {.variant = 2, .group_size = 4});
    a.road_alpha(0) = 0;  // outputs 0 and 2 become one
    const row_matrix<float> w = random_weight<float>(4, 5, 1);
    any_adapter<float> any = a;
    any.refresh(as_operator(w));
    row_matrix<float> merged = w;
    const auto receipt = merge(weight_view<float>(merged), any);
    REQUIRE(receipt.has_value());
    CHECK(merged.row(0).isZero());
    REQUIRE(unmerge(weight_view<float>(merged), *receipt, any));
    CHECK(same_bits(merged, w));
}

TEST_CASE("shapes that are no pairs are refused") {
    CHECK_THROWS_AS((void)make_road<float>(12, {.group_size = 5}), contract_violation);
    CHECK_THROWS_AS((void)make_road<float>(12, {.group_size = 8}), contract_violation);
    CHECK_THROWS_AS((void)make_road<float>(12, {.variant = 3, .group_size = 4}), contract_violation);
    auto a = make_road<float>(12, {.group_size = 4});
    a.road_alpha.conservativeResize(5);
    CHECK_FALSE(a.is_valid());
    CHECK_THROWS_AS(any_adapter<float>{a}, contract_violation);
}

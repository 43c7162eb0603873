// SPDX-License-Identifier: MIT
#include <lowrank/laser/edits/named_weight.hpp>

#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("reordering a list of weights moves no entries") {
    row_matrix<float> a = row_matrix<float>::Constant(2, 3, 1.0F), b = row_matrix<float>::Constant(5, 4, 2.0F);
    std::vector<named_weight<float>> weights = {{"a", a}, {"b", b}};
    std::reverse(weights.begin(), weights.end());
    CHECK(weights[0].name == "b");
    CHECK(weights[0].weight.data() == b.data());
    CHECK(weights[0].weight.rows() == 5);
    CHECK(weights[1].weight.data() == a.data());
    CHECK(a == row_matrix<float>::Constant(2, 3, 1.0F));
    CHECK(b == row_matrix<float>::Constant(5, 4, 2.0F));
}

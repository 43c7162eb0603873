// SPDX-License-Identifier: MIT
// A type without a transposed product is not a linear map, and the message names the concept.
// expects: linear_map|mappable
#include <lowrank/core/linear_map.hpp>

struct half_a_map {
    using scalar = float;
    [[nodiscard]] lowrank::index rows() const { return 1; }
    [[nodiscard]] lowrank::index cols() const { return 1; }
    void add_product(float, lowrank::const_column_view<float>, lowrank::column_view<float>, lowrank::workspace&) const {
    }
#ifndef LOWRANK_COMPILE_FAIL
    void add_transposed_product(float, lowrank::const_column_view<float>, lowrank::column_view<float>,
                                lowrank::workspace&) const {}
#endif
};

int main() {
    const lowrank::any_map<float> erased = half_a_map{};
    return static_cast<int>(lowrank::apply(erased, lowrank::matrix<float>(1, 1)).rows()) - 1;
}

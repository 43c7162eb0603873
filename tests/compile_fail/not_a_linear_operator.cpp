// SPDX-License-Identifier: MIT
// A type without a transposed product is not a linear operator, and the message names the concept.
// expects: linear_operator|operator_like
#include <lowrank/core/linear_operator.hpp>

struct half_an_operator {
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
    const lowrank::any_operator<float> erased(half_an_operator{});
    return static_cast<int>(lowrank::apply(erased, lowrank::matrix<float>(1, 1)).rows()) - 1;
}

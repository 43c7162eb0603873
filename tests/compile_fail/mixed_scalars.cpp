// SPDX-License-Identifier: MIT
// Activations in double do not meet a weight that computes in float by accident.
// expects: no matching function|could not convert|no viable conversion
#include <lowrank/core/linear_operator.hpp>

int main() {
    const lowrank::row_matrix<float> w(3, 4);
#ifdef LOWRANK_COMPILE_FAIL
    const lowrank::matrix<double> x(4, 2);
#else
    const lowrank::matrix<float> x(4, 2);
#endif
    return static_cast<int>(lowrank::apply(w, x).rows()) - 3;
}

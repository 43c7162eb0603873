// SPDX-License-Identifier: MIT
// A row-major X where columns are samples would be transposed data or a silent copy: it is refused.
// expects: no matching function|could not convert|no viable conversion
#include <lowrank/core/linear_operator.hpp>

int main() {
    const lowrank::row_matrix<float> w(3, 4);
#ifdef LOWRANK_COMPILE_FAIL
    const lowrank::row_matrix<float> x(4, 2);
#else
    const lowrank::matrix<float> x(4, 2);
#endif
    return static_cast<int>(lowrank::apply(w, x).rows()) - 3;
}

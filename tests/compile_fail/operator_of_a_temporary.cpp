// SPDX-License-Identifier: MIT
// An operator borrows a matrix; one that ends with the expression must be named or moved into an owned_operator.
// expects: deleted
#include <lowrank/core/linear_operator.hpp>

int main() {
    const lowrank::matrix<float> w = lowrank::matrix<float>::Ones(3, 4);
#ifdef LOWRANK_COMPILE_FAIL
    const lowrank::any_operator<float> m = lowrank::matrix<float>(w);
#else
    const lowrank::any_operator<float> m = w;
#endif
    return static_cast<int>(m.rows()) - 3;
}

// SPDX-License-Identifier: MIT
// Arithmetic is done in float or double; the message names the concept.
// expects: real<|concept real
#include <lowrank/core/linear_operator.hpp>

int main() {
#ifdef LOWRANK_COMPILE_FAIL
    using scalar = long double;
#else
    using scalar = double;
#endif
    return static_cast<int>(sizeof(lowrank::any_operator<scalar>) == 0);
}

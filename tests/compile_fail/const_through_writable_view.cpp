// SPDX-License-Identifier: MIT
// A writable view of constant memory is refused.
// expects: no matching (function|constructor)|conversion from .* requested|could not convert|no viable conversion
#include <lowrank/core/types.hpp>

int main() {
    const lowrank::matrix<float> constant = lowrank::matrix<float>::Ones(3, 4);
    lowrank::matrix<float> writable = constant;
#ifdef LOWRANK_COMPILE_FAIL
    lowrank::column_view<float> view = constant;
#else
    lowrank::column_view<float> view = writable;
#endif
    view(0, 0) = 2.0F;
    return static_cast<int>(writable(0, 0)) - 2;
}

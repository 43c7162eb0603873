// SPDX-License-Identifier: MIT
// Integers are no storage type.
// expects: storage
#include <lowrank/core/types.hpp>

int main() {
#ifdef LOWRANK_COMPILE_FAIL
    using stored = int;
#else
    using stored = lowrank::bfloat16;
#endif
    stored memory[4] = {};
    const lowrank::weight_view<stored> view(memory, 2, 2);
    return static_cast<int>(view.rows()) - 2;
}

// SPDX-License-Identifier: MIT
// A status that nobody looks at is a warning at least, and an error here.
// expects: nodiscard
#include <lowrank/core/status.hpp>

#pragma GCC diagnostic error "-Wunused-result"

lowrank::status save();
lowrank::status save() { return {}; }

int main() {
#ifdef LOWRANK_COMPILE_FAIL
    save();
    return 0;
#else
    return save() ? 0 : 1;
#endif
}

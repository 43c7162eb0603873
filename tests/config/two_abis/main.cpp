// SPDX-License-Identifier: MIT
// One program, three sets of switches. Without the inline ABI namespace the linker would keep one copy of each inline
// function for all three files.
#include "shared.hpp"

#include <cstdio>
#include <initializer_list>

int main() {
    const seen plain = see_plain();
    const seen quiet = see_without_exceptions();
    const seen fast = see_with_fast_math();
    int failures = 0;
    const auto check = [&](bool condition, const char* what) {
        if (!condition) {
            std::fprintf(stderr, "failed: %s\n", what);
            ++failures;
        }
    };
    check(plain.exceptions && fast.exceptions && !quiet.exceptions, "each file follows its own switch");
    check(plain.fail_place != quiet.fail_place, "code with and without exceptions is kept apart");
    check(plain.fail_place != fast.fail_place, "code with and without -ffast-math is kept apart");
    for (const seen& s : {plain, quiet, fast}) {
        check(s.product == 300.0, "the product is right under every switch");
        check(!s.nan_is_finite, "a NaN is seen under every switch");
    }
    return failures == 0 ? 0 : 1;
}

// SPDX-License-Identifier: MIT
// Part of finite_test.cpp, compiled with -ffast-math (tests/CMakeLists.txt), where x != x is folded to false.
#include <lowrank/core/finite.hpp>

namespace lowrank_tests {

bool fast_math_is_on() {
#ifdef __FAST_MATH__
    return true;
#else
    return false;
#endif
}

bool fast_math_all_finite(const float* data, lowrank::index count) { return lowrank::all_finite(data, count); }
bool fast_math_all_finite(const double* data, lowrank::index count) { return lowrank::all_finite(data, count); }

}  // namespace lowrank_tests

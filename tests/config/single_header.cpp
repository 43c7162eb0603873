// SPDX-License-Identifier: MIT
// The single header and Eigen, nothing else on the include path.
#include <lowrank.hpp>

#if __has_include(<lowrank/lowrank.hpp>)
#error "the folder must be out of reach in this test"
#endif

#include "form.hpp"

int main() { return truncate_something(); }

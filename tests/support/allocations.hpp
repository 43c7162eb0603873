// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_SUPPORT_ALLOCATIONS_HPP
#define LOWRANK_TESTS_SUPPORT_ALLOCATIONS_HPP

/// \file
/// Counts heap allocations, of operator new and of malloc, where the program links allocations.cpp.
///
///     const auto before = lowrank_tests::allocations();
///     serve(x);
///     CHECK(lowrank_tests::allocations() == before);

namespace lowrank_tests {

/// Calls of malloc, calloc, realloc and aligned allocation in this thread so far.
long allocations();

/// True where counting works: glibc without sanitizers.
bool can_count_allocations();

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_SUPPORT_ALLOCATIONS_HPP

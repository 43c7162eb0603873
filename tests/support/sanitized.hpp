// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_SUPPORT_SANITIZED_HPP
#define LOWRANK_TESTS_SUPPORT_SANITIZED_HPP

/// \file
/// Whether a sanitizer watches: it owns malloc, and code runs about ten times slower.

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LOWRANK_TESTS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define LOWRANK_TESTS_SANITIZED 1
#endif
#endif
#if !defined(LOWRANK_TESTS_SANITIZED)
#define LOWRANK_TESTS_SANITIZED 0
#endif

namespace lowrank_tests {

inline constexpr bool sanitized = LOWRANK_TESTS_SANITIZED != 0;

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_SUPPORT_SANITIZED_HPP

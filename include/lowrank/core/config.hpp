// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_CONFIG_HPP
#define LOWRANK_CORE_CONFIG_HPP

/// \file
/// Version, and the inline namespace that keeps translation units with different switches apart.
///
///     static_assert(LOWRANK_VERSION_MAJOR == 0);
///
/// Everything public lives in `lowrank`, inside the inline namespace `LOWRANK_ABI`, whose name spells the version and
/// every switch that changes generated code. Two translation units that disagree fail to link instead of misbehaving.

#define LOWRANK_VERSION_MAJOR 0
#define LOWRANK_VERSION_MINOR 1
#define LOWRANK_VERSION_PATCH 0

/// 1 if broken contracts throw `lowrank::contract_violation`, 0 if they print and abort. Follows the compiler.
#ifndef LOWRANK_EXCEPTIONS
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define LOWRANK_EXCEPTIONS 1
#else
#define LOWRANK_EXCEPTIONS 0
#endif
#endif

#if LOWRANK_EXCEPTIONS
#define LOWRANK_ABI v0_1
#else
#define LOWRANK_ABI v0_1_noexcept
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define LOWRANK_COLD __declspec(noinline)
#else
#define LOWRANK_COLD __attribute__((cold, noinline))
#endif

#endif  // LOWRANK_CORE_CONFIG_HPP

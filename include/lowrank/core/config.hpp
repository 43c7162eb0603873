// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_CONFIG_HPP
#define LOWRANK_CORE_CONFIG_HPP

/// \file
/// Version, and the inline namespace that keeps translation units with different switches apart.
///
///     static_assert(LOWRANK_VERSION_MAJOR == 0);
///
/// Everything public lives in `lowrank`, inside the inline namespace `LOWRANK_ABI`, whose name spells the version and
/// every switch that changes generated code. Two translation units that disagree fail to link instead of misbehaving,
/// and two that never meet can live in one program, one per instruction set.

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

// Instruction set and fast-math are such switches: the kernels are inline functions, and a linker that keeps one copy
// of a function for two translation units must not hand AVX-512 code to the one that was compiled for any machine.
#if LOWRANK_EXCEPTIONS && !defined(__FAST_MATH__)
#define LOWRANK_ABI_TAG(isa) v0_1_##isa
#elif LOWRANK_EXCEPTIONS
#define LOWRANK_ABI_TAG(isa) v0_1_fast_math_##isa
#elif !defined(__FAST_MATH__)
#define LOWRANK_ABI_TAG(isa) v0_1_noexcept_##isa
#else
#define LOWRANK_ABI_TAG(isa) v0_1_noexcept_fast_math_##isa
#endif

#if defined(__AVX512F__)
#define LOWRANK_ABI LOWRANK_ABI_TAG(avx512)
#elif defined(__AVX2__) && defined(__FMA__)
#define LOWRANK_ABI LOWRANK_ABI_TAG(avx2)
#elif defined(__AVX__)
#define LOWRANK_ABI LOWRANK_ABI_TAG(avx)
#else
#define LOWRANK_ABI LOWRANK_ABI_TAG(base)
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define LOWRANK_COLD __declspec(noinline)
#else
#define LOWRANK_COLD __attribute__((cold, noinline))
#endif

#endif  // LOWRANK_CORE_CONFIG_HPP

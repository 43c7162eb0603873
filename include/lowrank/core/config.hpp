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
#define LOWRANK_VERSION_MINOR 2
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
#define LOWRANK_ABI_SWITCHES
#elif LOWRANK_EXCEPTIONS
#define LOWRANK_ABI_SWITCHES fast_math_
#elif !defined(__FAST_MATH__)
#define LOWRANK_ABI_SWITCHES noexcept_
#else
#define LOWRANK_ABI_SWITCHES noexcept_fast_math_
#endif

#if defined(__AVX512F__)
#define LOWRANK_ABI_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define LOWRANK_ABI_ISA avx2
#elif defined(__AVX__)
#define LOWRANK_ABI_ISA avx
#else
#define LOWRANK_ABI_ISA base
#endif

#define LOWRANK_ABI_JOIN(major, minor, switches, isa) v##major##_##minor##_##switches##isa
#define LOWRANK_ABI_SPELL(major, minor, switches, isa) LOWRANK_ABI_JOIN(major, minor, switches, isa)
#define LOWRANK_ABI \
    LOWRANK_ABI_SPELL(LOWRANK_VERSION_MAJOR, LOWRANK_VERSION_MINOR, LOWRANK_ABI_SWITCHES, LOWRANK_ABI_ISA)

// Declarations and definitions. A header `x.hpp` declares; `x.ipp` beside it defines what is more than a few lines.
//
//     LOWRANK_API result<weight> read(path);          // x.hpp
//     #ifdef LOWRANK_DEFINITIONS
//     #include <lowrank/room/x.ipp>
//     #endif
//
//     LOWRANK_BODY result<weight> read(path) { ... }  // x.ipp
//
// Header-only, which is the default, such a function is a template without parameters of its own, so that a program
// pays for a body only where it calls the function. With LOWRANK_COMPILED, which the CMake target lowrank::compiled
// sets, it is an ordinary function of that library, and no program sees its body. Templates of a scalar keep their own
// `template` line and are instantiated for float and double at the end of the .ipp file, where LOWRANK_COMPILED is set.
// LOWRANK_INLINE heads a function that is defined where it stands, in a detail header that .ipp files alone include.
#ifdef LOWRANK_COMPILED
#define LOWRANK_API
#define LOWRANK_BODY
#else
#define LOWRANK_DEFINITIONS
#define LOWRANK_API template <class = void>
#define LOWRANK_BODY template <class>
#endif
#define LOWRANK_INLINE template <class = void>

// For lambdas: without it arrays of packets live in memory wherever a compiler finds a body too long to inline.
#if defined(__GNUC__) || defined(__clang__)
#define LOWRANK_FORCE_INLINE __attribute__((always_inline))
#elif defined(_MSC_VER)
#define LOWRANK_FORCE_INLINE [[msvc::forceinline]]
#else
#define LOWRANK_FORCE_INLINE
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define LOWRANK_COLD __declspec(noinline)
#else
#define LOWRANK_COLD __attribute__((cold, noinline))
#endif

#endif  // LOWRANK_CORE_CONFIG_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_SKETCH_HPP
#define LOWRANK_FACTOR_SKETCHED_SKETCH_HPP

/// \file
/// Random test matrices: what a randomized factorization multiplies its argument with.
///
///     auto omega = lowrank::sign_sketch<float>(w.cols(), 40, lowrank::philox(seed));
///
/// Signs and sparse signs come from integer arithmetic alone and are equal, bit for bit, on every machine; Gaussian and
/// trigonometric entries go through libm and are equal to about one unit in the last place. Entries of the sign and the
/// Gaussian sketch are pure functions of the generator and their position, so a wider one of the same height starts
/// with the narrower one.
///
/// Martinsson, Tropp, Acta Numerica 29 (2020), sections 8 and 9.

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// `count` signs, `stride` apart, from the bits of the words of `rng` from `word` on: -1 where a bit is set, else +1.
template <real S>
void fill_signs(const philox& rng, std::uint64_t word, index count, S* to, index stride);

/// An n x (k + more) matrix: k columns to find a range with, uniform in [-1, 1), or the identity if k is n, and `more` of
/// signs for evidence. A few columns of signs miss what a matrix of ones or zeros holds too often.
template <real S>
[[nodiscard]] matrix<S> range_sketch(index n, index k, index more, const philox& rng);

}  // namespace detail

/// An n x k matrix of independent signs +1, -1. Entry (i, j) is bit i mod 32 of word j * ceil(n / 32) + i / 32.
///
/// \cost n k / 32 words of the generator.
template <real S>
[[nodiscard]] matrix<S> sign_sketch(index n, index k, const philox& rng);

/// An n x k matrix of independent standard normals. Entry (i, j) takes position j n + i.
template <real S>
[[nodiscard]] matrix<S> gaussian_sketch(index n, index k, const philox& rng);

/// An n x k matrix with `nonzeros` signs, scaled by 1 / sqrt(nonzeros), in random places of every row: a sparse sign
/// embedding. Row i draws from its own stretch of the stream.
///
/// The scale 1 / sqrt(nonzeros) is exact where it is a power of two (1, 4, 16); elsewhere it is one rounding of libm's
/// correctly rounded square root.
/// \pre 1 <= nonzeros <= k, unless n or k is 0.
template <real S>
[[nodiscard]] matrix<S> sparse_sign_sketch(index n, index k, index nonzeros, const philox& rng);

/// An n x k matrix D C R sqrt(n / k): independent signs D, the orthonormal cosine transform C (DCT-II), and R, which
/// picks k of its columns at random without repetition: a subsampled trigonometric transform.
///
/// Its columns are exactly orthogonal, of norm sqrt(n / k), so it keeps lengths on average like the others and spreads
/// less on inputs that are not aligned with few cosines. Signs and choice of columns are equal on every machine, the
/// cosines to about one unit in the last place.
/// \pre  0 <= k <= n.
/// \cost 4 n cosines and n k products; 4 n doubles of scratch.
template <real S>
[[nodiscard]] matrix<S> trigonometric_sketch(index n, index k, const philox& rng);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/sketch.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_SKETCH_HPP

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

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An n x k matrix of independent signs +1, -1. Entry (i, j) is bit i mod 32 of word j * ceil(n / 32) + i / 32.
///
/// \cost n k / 32 words of the generator.
template <real S>
[[nodiscard]] matrix<S> sign_sketch(index n, index k, const philox& rng) {
    detail::expects(n >= 0 && k >= 0, "sign_sketch: sizes must not be negative");
    matrix<S> omega(n, k);
    const index words = (n + 31) / 32;
    for (index j = 0; j < k; ++j) {
        for (index w = 0; w < words; ++w) {
            const std::uint32_t bits = rng.bits(static_cast<std::uint64_t>(j * words + w));
            const index end = std::min(n, 32 * (w + 1));
            for (index i = 32 * w; i < end; ++i) {
                omega(i, j) = ((bits >> (i - 32 * w)) & 1U) != 0 ? S(-1) : S(1);
            }
        }
    }
    return omega;
}

/// An n x k matrix of independent standard normals. Entry (i, j) takes position j n + i.
template <real S>
[[nodiscard]] matrix<S> gaussian_sketch(index n, index k, const philox& rng) {
    detail::expects(n >= 0 && k >= 0, "gaussian_sketch: sizes must not be negative");
    matrix<S> omega(n, k);
    for (index j = 0; j < k; ++j) {
        for (index i = 0; i < n; ++i) {
            omega(i, j) = rng.normal<S>(static_cast<std::uint64_t>(j * n + i));
        }
    }
    return omega;
}

/// An n x k matrix with `nonzeros` signs, scaled by 1 / sqrt(nonzeros), in random places of every row: a sparse sign
/// embedding. Row i draws from its own stretch of the stream.
///
/// The scale 1 / sqrt(nonzeros) is exact where it is a power of two (1, 4, 16); elsewhere it is one rounding of libm's
/// correctly rounded square root.
/// \pre 1 <= nonzeros <= k, unless n or k is 0.
template <real S>
[[nodiscard]] matrix<S> sparse_sign_sketch(index n, index k, index nonzeros, const philox& rng) {
    detail::expects(n >= 0 && k >= 0, "sparse_sign_sketch: sizes must not be negative");
    matrix<S> omega = matrix<S>::Zero(n, k);
    if (omega.size() == 0) {
        return omega;
    }
    detail::expects_in_range("sparse_sign_sketch", "nonzeros", nonzeros, index{1}, k);
    const S scale = S(1) / std::sqrt(static_cast<S>(nonzeros));
    for (index i = 0; i < n; ++i) {
        for (index t = 0; t < nonzeros; ++t) {
            // Floyd's sampling: the t-th draw is from the first k - nonzeros + t + 1 places; a repeat takes the last.
            const index last = k - nonzeros + t;
            const auto position = static_cast<std::uint64_t>(i * nonzeros + t);
            auto at = static_cast<index>(rng.below(static_cast<std::uint64_t>(last + 1), 2 * position));
            if (omega(i, at) != S(0)) {
                at = last;
            }
            omega(i, at) = (rng.bits64(2 * position + 1) & 1U) != 0 ? -scale : scale;
        }
    }
    return omega;
}

/// An n x k matrix D C R sqrt(n / k): independent signs D, the orthonormal cosine transform C (DCT-II), and R, which
/// picks k of its columns at random without repetition: a subsampled trigonometric transform.
///
/// Its columns are exactly orthogonal, of norm sqrt(n / k), so it keeps lengths on average like the others and spreads
/// less on inputs that are not aligned with few cosines. Signs and choice of columns are equal on every machine, the
/// cosines to about one unit in the last place.
/// \pre  0 <= k <= n.
/// \cost 4 n cosines and n k products; 4 n doubles of scratch.
template <real S>
[[nodiscard]] matrix<S> trigonometric_sketch(index n, index k, const philox& rng) {
    detail::expects(n >= 0, "trigonometric_sketch: sizes must not be negative");
    detail::expects_in_range("trigonometric_sketch", "k", k, index{0}, n);
    matrix<S> omega(n, k);
    if (k == 0) {
        return omega;
    }
    const auto signs = sign_sketch<S>(n, 1, rng);
    const auto used = static_cast<std::uint64_t>((n + 63) / 64);  // 64-bit words behind the signs
    std::vector<index> columns(static_cast<std::size_t>(n));
    std::iota(columns.begin(), columns.end(), index{0});
    for (index j = 0; j < k; ++j) {
        const auto at = rng.below(static_cast<std::uint64_t>(n - j), used + static_cast<std::uint64_t>(j));
        std::swap(columns[static_cast<std::size_t>(j)],
                  columns[static_cast<std::size_t>(j) + static_cast<std::size_t>(at)]);
    }
    // cos(pi (2 i + 1) c / (2 n)) has period 4 n in the integer (2 i + 1) c: the argument is reduced without rounding.
    std::vector<S> cosines(static_cast<std::size_t>(4 * n));
    for (index r = 0; r < 4 * n; ++r) {
        cosines[static_cast<std::size_t>(r)] =
            static_cast<S>(std::sqrt(2.0 / static_cast<double>(k)) *
                           std::cos(std::numbers::pi * static_cast<double>(r) / (2.0 * static_cast<double>(n))));
    }
    for (index j = 0; j < k; ++j) {
        const index c = columns[static_cast<std::size_t>(j)];
        const S own = c == 0 ? static_cast<S>(std::sqrt(0.5)) : S(1);  // the constant column is longer by sqrt 2
        index r = c;
        for (index i = 0; i < n; ++i) {
            omega(i, j) = signs(i, 0) * own * cosines[static_cast<std::size_t>(r)];
            r += 2 * c;
            r = r >= 4 * n ? r - 4 * n : r;
        }
    }
    return omega;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_SKETCH_HPP

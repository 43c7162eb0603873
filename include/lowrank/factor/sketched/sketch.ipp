// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_SKETCH_IPP
#define LOWRANK_FACTOR_SKETCHED_SKETCH_IPP

#include <lowrank/factor/sketched/sketch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void detail::fill_signs(const philox& rng, std::uint64_t word, index count, S* to, index stride) {
    for (index first = 0; first < count; first += 32) {
        const std::uint32_t bits = rng.bits(word++);
        const index end = std::min(count, first + 32);
        for (index i = first; i < end; ++i) {
            to[i * stride] = ((bits >> (i - first)) & 1U) != 0 ? S(-1) : S(1);
        }
    }
}

template <real S>
matrix<S> sign_sketch(index n, index k, const philox& rng) {
    detail::expects(n >= 0 && k >= 0, "sign_sketch: sizes must not be negative");
    matrix<S> omega(n, k);
    const index words = (n + 31) / 32;
    for (index j = 0; j < k; ++j) {
        detail::fill_signs(rng, static_cast<std::uint64_t>(j * words), n, omega.data() + j * n, index{1});
    }
    return omega;
}

template <real S>
matrix<S> detail::range_sketch(index n, index k, index more, const philox& rng) {
    matrix<S> omega(n, k + more);
    if (k == n) {
        omega.leftCols(k).setIdentity();
    } else {
        fill_uniform(omega.leftCols(k), S(-1), S(1), rng);
    }
    const auto used = static_cast<std::uint64_t>(2 * n * k);  // words, of doubles; of floats half as many
    const index words = (n + 31) / 32;
    for (index j = 0; j < more; ++j) {
        fill_signs(rng, used + static_cast<std::uint64_t>(j * words), n, omega.data() + (k + j) * n, index{1});
    }
    return omega;
}

template <real S>
matrix<S> gaussian_sketch(index n, index k, const philox& rng) {
    detail::expects(n >= 0 && k >= 0, "gaussian_sketch: sizes must not be negative");
    matrix<S> omega(n, k);
    for (index j = 0; j < k; ++j) {
        for (index i = 0; i < n; ++i) {
            omega(i, j) = rng.normal<S>(static_cast<std::uint64_t>(j * n + i));
        }
    }
    return omega;
}

template <real S>
matrix<S> sparse_sign_sketch(index n, index k, index nonzeros, const philox& rng) {
    detail::expects(n >= 0 && k >= 0, "sparse_sign_sketch: sizes must not be negative");
    matrix<S> omega;
    omega.setZero(n, k);
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

template <real S>
matrix<S> trigonometric_sketch(index n, index k, const philox& rng) {
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

#ifdef LOWRANK_COMPILED
#define LOWRANK_SKETCHES_OF(S)                                                           \
    template void detail::fill_signs<S>(const philox&, std::uint64_t, index, S*, index); \
    template matrix<S> sign_sketch<S>(index, index, const philox&);                      \
    template matrix<S> detail::range_sketch<S>(index, index, index, const philox&);      \
    template matrix<S> gaussian_sketch<S>(index, index, const philox&);                  \
    template matrix<S> sparse_sign_sketch<S>(index, index, index, const philox&);        \
    template matrix<S> trigonometric_sketch<S>(index, index, const philox&);
LOWRANK_SKETCHES_OF(float)
LOWRANK_SKETCHES_OF(double)
#undef LOWRANK_SKETCHES_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_SKETCH_IPP

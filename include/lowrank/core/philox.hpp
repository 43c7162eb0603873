// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_PHILOX_HPP
#define LOWRANK_CORE_PHILOX_HPP

/// \file
/// Random numbers as a pure function of (seed, stream, position): Philox4x32-10.
///
///     lowrank::philox rng(seed, 3);                       // stream 3 of a seed
///     float u = rng.uniform<float>(17);                   // the same on every machine, in any order, on any thread
///     lowrank::fill_uniform(w, -0.1F, 0.1F, rng);
///
/// Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011. The known answers of its
/// reference implementation (Random123) are pinned in tests/core/philox_test.cpp.
///
/// Bits, integers, signs and uniforms are equal on every machine. Normals go through libm and are equal to about one
/// unit in the last place.

#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <numbers>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One block: four words from a 128-bit counter and a 64-bit key, ten rounds.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                                std::array<std::uint32_t, 2> key) noexcept {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * counter[0];
        const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * counter[2];
        counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
                   static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return counter;
}

/// A generator without state: each method is a pure function of the seed, the stream and the position asked for.
/// Different streams of one seed are independent; use one per matrix, layer or step.
class philox {
public:
    constexpr explicit philox(std::uint64_t seed = 0, std::uint64_t stream = 0) noexcept
        : seed_(seed), stream_(stream) {}

    [[nodiscard]] constexpr std::uint64_t seed() const noexcept { return seed_; }
    [[nodiscard]] constexpr std::uint64_t stream() const noexcept { return stream_; }

    /// Words 4 * number .. 4 * number + 3 of this stream.
    [[nodiscard]] constexpr std::array<std::uint32_t, 4> block(std::uint64_t number) const noexcept {
        return philox4x32({static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32),
                           static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                          {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
    }

    /// The 32-bit word at `position`.
    [[nodiscard]] constexpr std::uint32_t bits(std::uint64_t position) const noexcept {
        return block(position / 4)[position % 4];
    }

    /// The 64-bit word at `position`; it consists of the 32-bit words 2 * position and 2 * position + 1.
    [[nodiscard]] constexpr std::uint64_t bits64(std::uint64_t position) const noexcept {
        const auto four = block(position / 2);
        const auto at = 2 * (position % 2);
        return four[at] | (std::uint64_t{four[at + 1]} << 32);
    }

    /// Uniform in [0, 1), on a grid of 2^-24 (float) or 2^-53 (double).
    template <real S>
    [[nodiscard]] constexpr S uniform(std::uint64_t position) const noexcept {
        if constexpr (std::same_as<S, float>) {
            return static_cast<float>(bits(position) >> 8) * 0x1p-24F;
        } else {
            return static_cast<double>(bits64(position) >> 11) * 0x1p-53;
        }
    }

    /// Uniform in {0, .., bound - 1}; the bias is below bound / 2^64. \pre bound > 0
    [[nodiscard]] constexpr std::uint64_t below(std::uint64_t bound, std::uint64_t position) const noexcept {
        const std::uint64_t word = bits64(position);
        const std::uint64_t high = (word >> 32) * (bound >> 32);  // 64 x 64 -> upper 64 bits, by halves
        const std::uint64_t mid1 = (word >> 32) * (bound & 0xffffffffU);
        const std::uint64_t mid2 = (word & 0xffffffffU) * (bound >> 32);
        const std::uint64_t low = (word & 0xffffffffU) * (bound & 0xffffffffU);
        const std::uint64_t carry = ((low >> 32) + (mid1 & 0xffffffffU) + (mid2 & 0xffffffffU)) >> 32;
        return high + (mid1 >> 32) + (mid2 >> 32) + carry;
    }

    /// Standard normal, by Box and Muller; positions 2i and 2i + 1 are the pair of one draw.
    template <real S>
    [[nodiscard]] S normal(std::uint64_t position) const noexcept {
        const std::uint64_t pair = position / 2;
        const double u = static_cast<double>((bits64(2 * pair) >> 11) + 1) * 0x1p-53;  // (0, 1]
        const double angle = 2.0 * std::numbers::pi * uniform<double>(2 * pair + 1);
        const double radius = std::sqrt(-2.0 * std::log(u));
        return static_cast<S>(radius * (position % 2 == 0 ? std::cos(angle) : std::sin(angle)));
    }

private:
    std::uint64_t seed_;
    std::uint64_t stream_;
};

namespace detail {

/// low + (high - low) u with one rounding less than it looks, so that a compiler that contracts to fma and one that
/// does not get the same bits: in double the float product is exact, and for double the fma is asked for.
template <real S>
[[nodiscard]] S between(S low, S high, S u) noexcept {
    if constexpr (std::same_as<S, float>) {
        return static_cast<float>(static_cast<double>(high - low) * static_cast<double>(u) + static_cast<double>(low));
    } else {
        return std::fma(high - low, u, low);
    }
}

/// Sets x(i, j) = value(i * cols + j), in an order that meets neighbouring positions together and writes memory in
/// short runs in both storage orders.
template <class D, class F>
void fill_by_position(D& x, F value) {
    constexpr index run = 16;
    const index rows = x.rows(), cols = x.cols();
    for (index first = 0; first < cols; first += run) {
        const index last = first + run < cols ? first + run : cols;
        for (index i = 0; i < rows; ++i) {
            for (index j = first; j < last; ++j) {
                x(i, j) = value(static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(cols) +
                                static_cast<std::uint64_t>(j));
            }
        }
    }
}

/// Words of a stream by position; neighbours cost one block together.
class word_reader {
public:
    explicit word_reader(const philox& rng) noexcept : rng_(rng) {}

    [[nodiscard]] std::uint32_t bits(std::uint64_t position) noexcept {
        if (position / 4 != number_ || !filled_) {
            number_ = position / 4;
            words_ = rng_.block(number_);
            filled_ = true;
        }
        return words_[position % 4];
    }

    /// philox::uniform of the same position.
    template <real S>
    [[nodiscard]] S uniform(std::uint64_t position) noexcept {
        if constexpr (std::same_as<S, float>) {
            return static_cast<float>(bits(position) >> 8) * 0x1p-24F;
        } else {
            const std::uint64_t word = bits(2 * position) | (std::uint64_t{bits(2 * position + 1)} << 32);
            return static_cast<double>(word >> 11) * 0x1p-53;
        }
    }

private:
    const philox& rng_;
    std::uint64_t number_ = 0;
    bool filled_ = false;
    std::array<std::uint32_t, 4> words_ = {};
};

}  // namespace detail

/// Fills `x` with uniforms in [low, high): the entry in row i, column j takes position i * cols + j, whatever the
/// storage order, so that a row-major and a column-major matrix get the same numbers. Equal on every machine.
/// Where the interval is short against its bounds, the last rounding can give `high` itself.
template <detail::eigen_dense D>
requires real<typename detail::plain_t<D>::Scalar>
void fill_uniform(D&& x, typename detail::plain_t<D>::Scalar low, typename detail::plain_t<D>::Scalar high,
                  const philox& rng) {
    using S = typename detail::plain_t<D>::Scalar;
    detail::word_reader words(rng);
    detail::fill_by_position(
        x, [&](std::uint64_t at) { return detail::between<S>(low, high, words.template uniform<S>(at)); });
}

/// Fills `x` with normals of the given standard deviation; positions as in `fill_uniform`.
template <detail::eigen_dense D>
requires real<typename detail::plain_t<D>::Scalar>
void fill_normal(D&& x, typename detail::plain_t<D>::Scalar deviation, const philox& rng) {
    using S = typename detail::plain_t<D>::Scalar;
    detail::fill_by_position(x, [&](std::uint64_t at) { return deviation * rng.normal<S>(at); });
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_PHILOX_HPP

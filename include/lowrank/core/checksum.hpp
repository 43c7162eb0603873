// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_CHECKSUM_HPP
#define LOWRANK_CORE_CHECKSUM_HPP

/// \file
/// A fast checksum of memory, to notice accidents.
///
///     std::uint64_t sum = lowrank::checksum(w.data(), bytes, 1);   // chained: the last sum is the next seed

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A 64-bit checksum of memory, chained through `seed`: equal on machines of one byte order. It notices accidents; it
/// does not withstand an adversary.
[[nodiscard]] inline std::uint64_t checksum(const void* data, std::size_t size, std::uint64_t seed) noexcept {
    constexpr std::uint64_t multiplier = 0x9E3779B97F4A7C15U;
    const auto* at = static_cast<const unsigned char*>(data);
    const auto mix = [](std::uint64_t h, std::uint64_t word) {
        h = (h ^ word) * multiplier;
        return h ^ (h >> 29);
    };
    std::uint64_t lanes[4] = {seed, ~seed, seed + multiplier, seed ^ multiplier};
    std::size_t left = size;
    for (; left >= 32; left -= 32, at += 32) {
        std::uint64_t words[4];
        std::memcpy(words, at, 32);
        for (int k = 0; k < 4; ++k) {  // four chains run side by side
            lanes[k] = mix(lanes[k], words[k]);
        }
    }
    for (; left > 0; left -= left < 8 ? left : 8, at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, at, left < 8 ? left : 8);
        lanes[0] = mix(lanes[0], word);
    }
    return mix(mix(mix(lanes[0], lanes[1]), lanes[2]), mix(lanes[3], size));
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_CHECKSUM_HPP

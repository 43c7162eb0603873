// SPDX-License-Identifier: MIT
#include <lowrank/core/checksum.hpp>

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include <doctest/doctest.h>

using lowrank::checksum;

TEST_CASE("a checksum depends on every byte, the length and the seed") {
    std::vector<unsigned char> bytes(77, 0);
    std::set<std::uint64_t> seen;
    for (std::size_t size = 0; size <= bytes.size(); ++size) {
        seen.insert(checksum(bytes.data(), size, 1));  // zeros of every length
    }
    seen.insert(checksum(bytes.data(), bytes.size(), 2));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        for (const unsigned bit : {0U, 7U}) {
            bytes[i] = static_cast<unsigned char>(1U << bit);
            seen.insert(checksum(bytes.data(), bytes.size(), 1));
            bytes[i] = 0;
        }
    }
    CHECK(seen.size() == 78 + 1 + 2 * 77);
    CHECK(seen.count(checksum(bytes.data(), bytes.size(), 1)) == 1);
}

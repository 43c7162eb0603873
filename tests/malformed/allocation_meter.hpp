// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_MALFORMED_ALLOCATION_METER_HPP
#define LOWRANK_TESTS_MALFORMED_ALLOCATION_METER_HPP

/// \file
/// How much memory a reader asks for while it looks at a hostile file.
///
///     allocation_meter meter;
///     (void)safetensors_file::from_bytes(bytes);
///     CHECK(meter.bytes() < 64 * bytes.size() + 65536);

#include <cstddef>

namespace lowrank_tests {

/// Bytes asked of operator new by this program so far.
std::size_t allocated_bytes();

class allocation_meter {
public:
    allocation_meter() : start_(allocated_bytes()) {}
    /// Asked for since construction, whether given back or not.
    [[nodiscard]] std::size_t bytes() const { return allocated_bytes() - start_; }

private:
    std::size_t start_;
};

/// What a reader may ask for in all, given the size of its input: a fixed amount and a small multiple.
inline std::size_t justified(std::size_t input) { return 64 * input + (std::size_t{1} << 16); }

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_MALFORMED_ALLOCATION_METER_HPP

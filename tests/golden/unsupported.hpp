// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP
#define LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP

/// \file
/// The golden cases that the library cannot compute yet. A case that passes must not be here; every other case of the
/// folder must pass.

#include <string_view>
#include <vector>

namespace lowrank_tests {

inline const std::vector<std::string_view> unsupported_cases = {};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP

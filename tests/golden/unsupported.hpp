// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP
#define LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP

/// \file
/// The families of golden cases whose kind of adapter the library does not have, by their name in case.json. Their
/// folders are refused by the reader. Every case of any other family must pass, so a new kind takes its line away here.

#include <string_view>
#include <vector>

namespace lowrank_tests {

inline const std::vector<std::string_view> unsupported_families = {};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP

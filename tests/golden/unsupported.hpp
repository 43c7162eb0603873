// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP
#define LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP

/// \file
/// The golden cases that the library cannot compute yet. A case that passes must not be here; every other case of the
/// folder must pass.

#include <string_view>
#include <vector>

namespace lowrank_tests {

inline const std::vector<std::string_view> unsupported_cases = {
    "adalora-allocator", "boft-conv2d",       "boft-linear", "boft-linear-butterfly",  "oft-coft",
    "oft-conv2d-1x1",    "oft-conv2d-merged", "oft-linear",  "oft-linear-block-share", "oft-neumann",
};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP

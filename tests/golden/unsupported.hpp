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
    "init-loftq-iterations",  // in double: the dequantized base is kept in float
    "bdlora-linear",
    "c3a-linear",
    "delora-linear",
    "fourierft-fan-in-fan-out",
    "fourierft-linear",
    "gralora-fan-in-fan-out",
    "gralora-hybrid",
    "gralora-linear",
    "hira-conv2d",
    "hira-embedding",
    "kasa-linear",
    "ln-tuning",
    "lora-target-parameters",
    "lora-target-parameters-two-active",
    "miss-bat",
    "qalora-linear",
    "road-1",
    "road-2",
    "road-4",
    "shira-linear",
    "tinylora-fan-in-fan-out",
    "tinylora-linear",
    "vblora-fan-in-fan-out",
    "vblora-linear",
    "vblora-topk-only",
};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_UNSUPPORTED_HPP

// SPDX-License-Identifier: MIT
#ifndef LLAMA_CONTRACT_HPP
#define LLAMA_CONTRACT_HPP

/// \file
/// Broken contracts of the engine, reported as the library reports its own.
///
///     llama::expects_in_range("llama::forward_from", "last", last, 0, layers);
///     // throws lowrank::contract_violation: "llama::forward_from: last must be in [0, 3], got 4"

#include <string>

#include <lowrank/core/check.hpp>
#include <lowrank/core/types.hpp>

namespace llama {

inline void expects(bool condition, const char* text) {
    if (!condition) {
        throw lowrank::contract_violation(text);
    }
}

inline void expects_in_range(const char* function, const char* argument, lowrank::index value, lowrank::index low,
                             lowrank::index high) {
    if (value < low || value > high) {
        throw lowrank::contract_violation(std::string(function) + ": " + argument + " must be in [" +
                                          std::to_string(low) + ", " + std::to_string(high) + "], got " +
                                          std::to_string(value));
    }
}

inline void expects_shape(const char* function, const char* argument, lowrank::index rows, lowrank::index cols,
                          lowrank::index want_rows, lowrank::index want_cols) {
    if (rows != want_rows || cols != want_cols) {
        throw lowrank::contract_violation(std::string(function) + ": " + argument + " must be " +
                                          std::to_string(want_rows) + " x " + std::to_string(want_cols) + ", got " +
                                          std::to_string(rows) + " x " + std::to_string(cols));
    }
}

}  // namespace llama

#endif  // LLAMA_CONTRACT_HPP

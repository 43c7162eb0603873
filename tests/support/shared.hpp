// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_SUPPORT_SHARED_HPP
#define LOWRANK_TESTS_SUPPORT_SHARED_HPP

/// \file
/// Finds the reference data that some tests need: a real model, real adapters, golden cases, hostile files.
///
///     LOWRANK_NEEDS_SHARED(dir);                       // skips the test case where the data is absent
///     auto model = dir / "models/stories260K";

#include <cstdlib>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>

namespace lowrank_tests {

/// The folder LOWRANK_SHARED names, or an empty path.
inline std::filesystem::path shared_folder() {
    const char* value = std::getenv("LOWRANK_SHARED");
    return value != nullptr && std::filesystem::is_directory(value) ? std::filesystem::absolute(value)
                                                                    : std::filesystem::path();
}

/// The golden cases: LOWRANK_GOLDEN_DIR, or golden/cases of the shared folder.
inline std::filesystem::path golden_folder() {
    if (const char* value = std::getenv("LOWRANK_GOLDEN_DIR"); value != nullptr) {
        return std::filesystem::absolute(value);
    }
    const auto shared = shared_folder();
    return shared.empty() ? shared : shared / "golden" / "cases";
}

}  // namespace lowrank_tests

/// Names the shared folder, or ends the test case; ctest reports it as skipped from the text.
#define LOWRANK_NEEDS_SHARED(name)                                     \
    const std::filesystem::path name = lowrank_tests::shared_folder(); \
    if (name.empty()) {                                                \
        MESSAGE("LOWRANK_SHARED is not set: skipped");                 \
        return;                                                        \
    }                                                                  \
    static_assert(true)

#endif  // LOWRANK_TESTS_SUPPORT_SHARED_HPP

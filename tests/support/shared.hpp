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
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace lowrank_tests {

/// The folder LOWRANK_SHARED names, or an empty path.
inline std::filesystem::path shared_folder() {
    const char* value = std::getenv("LOWRANK_SHARED");
    return value != nullptr && std::filesystem::is_directory(value) ? std::filesystem::absolute(value)
                                                                    : std::filesystem::path();
}

/// The folders of golden cases: LOWRANK_GOLDEN_DIR, or those in golden/ of the shared folder.
inline std::vector<std::filesystem::path> golden_folders() {
    if (const char* value = std::getenv("LOWRANK_GOLDEN_DIR"); value != nullptr) {
        return {std::filesystem::absolute(value)};
    }
    const auto shared = shared_folder();
    std::vector<std::filesystem::path> all;
    for (const char* name : {"cases", "cases2"}) {
        if (!shared.empty() && std::filesystem::is_directory(shared / "golden" / name)) {
            all.push_back(shared / "golden" / name);
        }
    }
    return all;
}

/// The folders of all cases, sorted.
inline std::set<std::filesystem::path> golden_cases() {
    std::set<std::filesystem::path> cases;
    for (const auto& folder : golden_folders()) {
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            if (std::filesystem::exists(entry.path() / "case.json")) {
                cases.insert(entry.path());
            }
        }
    }
    return cases;
}

/// The first of the folders, or an empty path.
inline std::filesystem::path golden_folder() {
    const auto all = golden_folders();
    return all.empty() ? std::filesystem::path() : all.front();
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

// SPDX-License-Identifier: MIT
#include "matrices.hpp"

#include <utility>

#include "console.hpp"
#include "options.hpp"

namespace tool {

matrix_choice::matrix_choice(std::vector<std::string> patterns)
    : patterns_(std::move(patterns)), used_(patterns_.size(), false) {}

bool matrix_choice::contains(std::string_view name) const {
    std::string_view module = name;
    if (module.ends_with(".weight")) {
        module.remove_suffix(std::string_view(".weight").size());
    }
    bool found = false;
    for (std::size_t i = 0; i < patterns_.size(); ++i) {
        const std::string ending = "*." + patterns_[i];
        if (glob_match(patterns_[i], name) || glob_match(patterns_[i], module) || glob_match(ending, name) ||
            glob_match(ending, module)) {
            used_[i] = true;
            found = true;
        }
    }
    return found;
}

void matrix_choice::require_all_used() const {
    for (std::size_t i = 0; i < patterns_.size(); ++i) {
        if (!used_[i]) {
            fail("--matrix " + patterns_[i] + " is no matrix of the model; 'lowrank inspect' lists their names",
                 lowrank::errc::not_found);
        }
    }
}

}  // namespace tool

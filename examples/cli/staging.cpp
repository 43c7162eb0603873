// SPDX-License-Identifier: MIT
#include "staging.hpp"

#include <string_view>

#include "console.hpp"

namespace tool {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view force_switch = "--force";

}  // namespace

void require_writable_target(const fs::path& target, bool force, const std::vector<fs::path>& inputs) {
    lowrank::throw_if_failed(
        lowrank::check_output_folder(target, {.replace = force, .inputs = inputs, .name_of_replace = force_switch}));
}

void require_writable_file(const fs::path& target, bool force) {
    lowrank::throw_if_failed(lowrank::check_output_file(target, {.replace = force, .name_of_replace = force_switch}));
}

staged_folder::staged_folder(const fs::path& target, bool force, const std::vector<fs::path>& inputs, bool resume)
    : folder_(take(lowrank::staged_folder::create(
          target, {.replace = force, .resume = resume, .inputs = inputs, .name_of_replace = force_switch}))) {}

staged_folder::~staged_folder() {
    if (folder_.is_resumable()) {
        say("what is finished stays in " + path().string() + "; the same command with --resume continues from there");
    }
}

void staged_folder::commit() {
    stop_if_interrupted();
    lowrank::throw_if_failed(folder_.commit());
}

}  // namespace tool

// SPDX-License-Identifier: MIT
#include "staging.hpp"

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/mapped_file.hpp>

#include "console.hpp"

namespace tool {
namespace fs = std::filesystem;
namespace {

/// The target as an absolute path without a trailing slash, so that it has a parent and a name.
fs::path plain(const fs::path& target) {
    fs::path p = fs::absolute(target).lexically_normal();
    return p.has_filename() ? p : p.parent_path();
}

/// True if `inner` is `outer` or lies below it.
bool contains(const fs::path& outer, const fs::path& inner) {
    std::error_code ignored;
    const fs::path a = fs::weakly_canonical(outer, ignored);
    const fs::path b = fs::weakly_canonical(inner, ignored);
    const fs::path relative = b.lexically_relative(a);
    return !relative.empty() && *relative.begin() != "..";
}

/// A folder we may replace: it holds a checkpoint or an adapter and no folder.
bool replaceable(const fs::path& folder) {
    bool known = false;
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
        if (!it->is_regular_file(error)) {
            return false;
        }
        const auto name = it->path().filename();
        known = known || name == "config.json" || name == "adapter_config.json";
    }
    return !error && (known || fs::is_empty(folder, error));
}

fs::path beside(const fs::path& target, const char* suffix) {
    for (int n = 0;; ++n) {
        std::string name(".");
        name.append(target.filename().string()).append(suffix).append(std::to_string(n));
        fs::path candidate = target.parent_path() / name;
        std::error_code error;
        if (!fs::exists(fs::symlink_status(candidate, error))) {
            return candidate;
        }
    }
}

/// The folder with the journal of a run that did not end, or nothing.
fs::path unfinished(const fs::path& target) {
    const std::string start = "." + target.filename().string() + ".partial-";
    std::error_code error;
    std::vector<fs::path> found;
    for (fs::directory_iterator it(target.parent_path(), error), end; !error && it != end; it.increment(error)) {
        if (it->path().filename().string().starts_with(start) && fs::is_directory(it->symlink_status(error)) &&
            fs::is_regular_file(fs::symlink_status(it->path() / lowrank::detail::shard_journal::name, error))) {
            found.push_back(it->path());
        }
    }
    return found.empty() ? fs::path() : *std::min_element(found.begin(), found.end());
}

void check_parent(const fs::path& target) {
    std::error_code error;
    if (!fs::is_directory(target.parent_path(), error)) {
        fail("cannot write to " + target.string() + ": the folder " + target.parent_path().string() +
                 " does not exist, create it first",
             lowrank::errc::not_found);
    }
}

}  // namespace

void require_writable_target(const fs::path& target, bool force, const std::vector<fs::path>& inputs) {
    const fs::path to = plain(target);
    check_parent(to);
    std::error_code error;
    if (!fs::exists(fs::symlink_status(to, error))) {
        return;
    }
    for (const auto& input : inputs) {
        if (contains(to, input)) {
            fail("the output " + target.string() + " is or contains the input " + input.string() +
                     ", name another folder",
                 lowrank::errc::io_failure);
        }
    }
    if (!force) {
        fail("the output " + target.string() + " exists already, name another folder or give --force to replace it",
             lowrank::errc::io_failure);
    }
    if (!fs::is_directory(fs::symlink_status(to, error)) || !replaceable(to)) {
        fail("the output " + target.string() +
                 " is not a folder with only a checkpoint or an adapter in it, so --force does not replace it",
             lowrank::errc::io_failure);
    }
}

void require_writable_file(const fs::path& target, bool force) {
    const fs::path to = plain(target);
    check_parent(to);
    std::error_code error;
    const auto status = fs::symlink_status(to, error);
    if (!fs::exists(status)) {
        return;
    }
    if (!fs::is_regular_file(status)) {
        fail("the output " + target.string() + " exists and is not a regular file, name another file",
             lowrank::errc::io_failure);
    }
    if (!force) {
        fail("the output " + target.string() + " exists already, name another file or give --force to replace it",
             lowrank::errc::io_failure);
    }
}

staged_folder::staged_folder(const fs::path& target, bool force, const std::vector<fs::path>& inputs, bool resume)
    : target_(plain(target)), force_(force), resume_(resume) {
    require_writable_target(target, force, inputs);
    if (resume) {
        staging_ = unfinished(target_);
        if (!staging_.empty()) {
            return;
        }
    }
    const fs::path staging = beside(target_, ".partial-");
    std::error_code error;
    if (!fs::create_directory(staging, error) || error) {
        fail("cannot create a folder beside " + target_.string() + ": " + error.message(), lowrank::errc::io_failure);
    }
    staging_ = staging;
}

staged_folder::~staged_folder() {
    std::error_code ignored;
    if (staging_.empty()) {
        return;
    }
    if (resume_ && fs::exists(staging_ / lowrank::detail::shard_journal::name, ignored)) {
        say("what is finished stays in " + staging_.string() + "; the same command with --resume goes on from there");
    } else {
        fs::remove_all(staging_, ignored);
    }
}

void staged_folder::commit() {
    stop_if_interrupted();
    std::error_code error;
    fs::path old;
    if (force_ && fs::exists(target_, error)) {
        old = beside(target_, ".replaced-");
        fs::rename(target_, old, error);
        if (error) {
            fail("cannot replace " + target_.string() + ": " + error.message(), lowrank::errc::io_failure);
        }
    }
    fs::rename(staging_, target_, error);
    if (error) {
        const std::string reason = error.message();
        if (!old.empty()) {
            fs::rename(old, target_, error);
        }
        fail("cannot give the output the name " + target_.string() + ": " + reason, lowrank::errc::io_failure);
    }
    staging_.clear();
    if (!old.empty()) {
        fs::remove_all(old, error);
    }
}

}  // namespace tool

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_STAGED_FOLDER_IPP
#define LOWRANK_IO_CONTAINERS_STAGED_FOLDER_IPP

#include <lowrank/io/containers/staged_folder.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// An absolute path without a trailing slash, so that it has a parent and a name.
LOWRANK_API std::filesystem::path named_path(const std::filesystem::path& target) {
    const std::filesystem::path p = std::filesystem::absolute(target).lexically_normal();
    return p.has_filename() ? p : p.parent_path();
}

/// True if `inner` is `outer` or lies below it.
LOWRANK_API bool lies_within(const std::filesystem::path& outer, const std::filesystem::path& inner) {
    std::error_code error;
    const auto a = std::filesystem::weakly_canonical(outer, error);
    const auto b = std::filesystem::weakly_canonical(inner, error);
    const auto relative = b.lexically_relative(a);
    return !relative.empty() && *relative.begin() != "..";
}

/// A folder that may be replaced: it holds a checkpoint or an adapter and no folder.
LOWRANK_API bool is_replaceable(const std::filesystem::path& folder) {
    bool known = false;
    std::error_code error;
    for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
        if (!it->is_regular_file(error)) {
            return false;
        }
        const auto name = it->path().filename();
        known = known || name == "config.json" || name == "adapter_config.json";
    }
    return !error && (known || std::filesystem::is_empty(folder, error));
}

/// The first name ".target<suffix>0", ".target<suffix>1", ... that is free.
LOWRANK_API std::filesystem::path free_sibling(const std::filesystem::path& target, const char* suffix) {
    for (int n = 0;; ++n) {
        const std::filesystem::path candidate =
            target.parent_path() / ("." + target.filename().string() + suffix + std::to_string(n));
        std::error_code error;
        if (!std::filesystem::exists(std::filesystem::symlink_status(candidate, error))) {
            return candidate;
        }
    }
}

/// The folder an interrupted run left for `target`, or an empty path.
LOWRANK_API std::filesystem::path unfinished_sibling(const std::filesystem::path& target) {
    const std::string start = "." + target.filename().string() + ".partial-";
    std::error_code error;
    std::vector<std::filesystem::path> found;
    for (std::filesystem::directory_iterator it(target.parent_path(), error), end; !error && it != end;
         it.increment(error)) {
        if (it->path().filename().string().starts_with(start) &&
            std::filesystem::is_directory(it->symlink_status(error)) &&
            std::filesystem::is_regular_file(std::filesystem::symlink_status(it->path() / unfinished_file, error))) {
            found.push_back(it->path());
        }
    }
    return found.empty() ? std::filesystem::path() : *std::min_element(found.begin(), found.end());
}

LOWRANK_API status check_parent_of(const std::filesystem::path& target) {
    std::error_code error;
    if (!std::filesystem::is_directory(target.parent_path(), error)) {
        return {errc::not_found, "cannot write to " + target.string() + ": the folder " +
                                     target.parent_path().string() + " does not exist, create it first"};
    }
    return {};
}

}  // namespace detail

LOWRANK_BODY status check_output_folder(const std::filesystem::path& target, const staging_options& opt) {
    const std::filesystem::path to = detail::named_path(target);
    if (status why = detail::check_parent_of(to); !why) {
        return why;
    }
    std::error_code error;
    if (!std::filesystem::exists(std::filesystem::symlink_status(to, error))) {
        return {};
    }
    for (const auto& input : opt.inputs) {
        if (detail::lies_within(to, input)) {
            return {errc::io_failure, "the output " + target.string() + " is or contains the input " + input.string() +
                                          ", name another folder"};
        }
    }
    if (!opt.replace) {
        return {errc::io_failure, "the output " + target.string() + " exists already, name another folder or use " +
                                      std::string(opt.name_of_replace) + " to replace it"};
    }
    if (!std::filesystem::is_directory(std::filesystem::symlink_status(to, error)) || !detail::is_replaceable(to)) {
        return {errc::io_failure, "the output " + target.string() +
                                      " is not a folder with only a checkpoint or an adapter in it, so " +
                                      std::string(opt.name_of_replace) + " does not replace it, name another folder"};
    }
    return {};
}

LOWRANK_BODY status check_output_file(const std::filesystem::path& target, const staging_options& opt) {
    const std::filesystem::path to = detail::named_path(target);
    if (status why = detail::check_parent_of(to); !why) {
        return why;
    }
    std::error_code error;
    const auto found = std::filesystem::symlink_status(to, error);
    if (!std::filesystem::exists(found)) {
        return {};
    }
    if (!std::filesystem::is_regular_file(found)) {
        return {errc::io_failure,
                "the output " + target.string() + " exists and is not a regular file, name another file"};
    }
    if (!opt.replace) {
        return {errc::io_failure, "the output " + target.string() + " exists already, name another file or use " +
                                      std::string(opt.name_of_replace) + " to replace it"};
    }
    return {};
}

LOWRANK_BODY result<staged_folder> staged_folder::create(const std::filesystem::path& target,
                                                         const staging_options& opt) {
    if (status why = check_output_folder(target, opt); !why) {
        return why;
    }
    staged_folder out;
    out.target_ = detail::named_path(target);
    out.replace_ = opt.replace;
    out.resume_ = opt.resume;
    if (opt.resume) {
        out.staging_ = detail::unfinished_sibling(out.target_);
        if (!out.staging_.empty()) {
            return out;
        }
    }
    const std::filesystem::path staging = detail::free_sibling(out.target_, ".partial-");
    std::error_code error;
    if (!std::filesystem::create_directory(staging, error) || error) {
        return status{errc::io_failure,
                      "cannot create a folder beside " + out.target_.string() + ": " + error.message()};
    }
    out.staging_ = staging;
    return out;
}

LOWRANK_BODY status staged_folder::commit() {
    std::error_code error;
    std::filesystem::path old;
    if (replace_ && std::filesystem::exists(target_, error)) {
        old = detail::free_sibling(target_, ".replaced-");
        std::filesystem::rename(target_, old, error);
        if (error) {
            return {errc::io_failure, "cannot replace " + target_.string() + ": " + error.message()};
        }
    }
    std::filesystem::rename(staging_, target_, error);
    if (error) {
        const std::string reason = error.message();
        if (!old.empty()) {
            std::filesystem::rename(old, target_, error);
        }
        return {errc::io_failure, "cannot give the output the name " + target_.string() + ": " + reason};
    }
    staging_.clear();
    if (!old.empty()) {
        std::filesystem::remove_all(old, error);
    }
    return {};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_STAGED_FOLDER_IPP

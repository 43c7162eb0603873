// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_STAGED_FOLDER_HPP
#define LOWRANK_IO_CONTAINERS_STAGED_FOLDER_HPP

/// \file
/// A folder that appears whole or not at all: filled beside its place, then renamed into it.
///
///     auto out = lowrank::staged_folder::create("merged", {.inputs = {"base", "adapter"}});
///     if (!out) return log(out.error().message);
///     use(out->path());                                              // write files into it
///     if (auto why = out->commit(); !why) return log(why.message);   // one rename; without it nothing stays

#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The file that marks a folder as unfinished work which can be resumed.
inline constexpr std::string_view unfinished_file = "lowrank-unfinished.jsonl";

struct staging_options {
    bool replace = false;  ///< Replace a folder that holds a checkpoint or an adapter and no folder.
    bool resume = false;   ///< Take over what an interrupted run left, and leave an own unfinished folder behind.
    std::vector<std::filesystem::path> inputs = {};  ///< Must not be replaced, nor lie in what is.
    std::string_view name_of_replace = "replace";    ///< What messages call `replace`: a tool's own switch.
};

/// A new folder beside its target that takes the target's name on `commit`. The destructor removes it, unless it was
/// made with `resume` and holds `unfinished_file`.
class staged_folder {
public:
    /// \return `not_found` if the target's parent does not exist; `io_failure` if the target exists and may not be
    ///         replaced, is an input or contains one, or if the system refuses.
    LOWRANK_API [[nodiscard]] static result<staged_folder> create(const std::filesystem::path& target,
                                                                  const staging_options& opt = {});
    staged_folder(staged_folder&& other) noexcept { swap(other); }
    staged_folder& operator=(staged_folder&& other) noexcept {
        staged_folder taken(std::move(other));
        swap(taken);
        return *this;
    }
    ~staged_folder();

    /// Where to write. Empty after `commit`.
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return staging_; }

    /// True if the destructor would leave the folder for a later run to resume.
    [[nodiscard]] bool is_resumable() const;

    /// Gives the folder its name.
    ///
    /// \return `io_failure` if the system refuses; what was under the name is then there again.
    LOWRANK_API [[nodiscard]] status commit();

private:
    staged_folder() = default;
    void swap(staged_folder& other) noexcept {
        target_.swap(other.target_);
        staging_.swap(other.staging_);
        std::swap(replace_, other.replace_);
        std::swap(resume_, other.resume_);
    }

    std::filesystem::path target_ = {};
    std::filesystem::path staging_ = {};
    bool replace_ = false;
    bool resume_ = false;
};

/// What `staged_folder::create` would refuse, asked before work that takes long. Nothing is created.
LOWRANK_API [[nodiscard]] status check_output_folder(const std::filesystem::path& target,
                                                     const staging_options& opt = {});

/// The same for a single file: its folder exists, and it is not there yet or, with `replace`, is a regular file.
LOWRANK_API [[nodiscard]] status check_output_file(const std::filesystem::path& target,
                                                   const staging_options& opt = {});

inline bool staged_folder::is_resumable() const {
    std::error_code error;
    return resume_ && !staging_.empty() && std::filesystem::exists(staging_ / unfinished_file, error);
}

inline staged_folder::~staged_folder() {
    if (!staging_.empty() && !is_resumable()) {
        std::error_code error;
        std::filesystem::remove_all(staging_, error);
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/containers/staged_folder.ipp>
#endif

#endif  // LOWRANK_IO_CONTAINERS_STAGED_FOLDER_HPP

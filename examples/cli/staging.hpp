// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_STAGING_HPP
#define LOWRANK_EXAMPLES_CLI_STAGING_HPP

/// \file
/// Output folders that appear whole or not at all.
///
///     tool::staged_folder out(target, force, {model_folder});
///     write_files_into(out.path());
///     out.commit();                              // one rename; without it the destructor removes everything

#include <filesystem>
#include <string_view>
#include <vector>

namespace tool {

/// A new folder beside `target` that takes its name on `commit()`.
class staged_folder {
public:
    /// Fails with a sentence if `target` exists (without `force`), cannot be created, is one of `inputs` or contains
    /// one. `force` replaces a folder that holds a checkpoint or an adapter and nothing below it, and no other.
    /// `resume` takes over the folder that an unfinished run left, if there is one, and leaves its own to the next run.
    staged_folder(const std::filesystem::path& target, bool force, const std::vector<std::filesystem::path>& inputs,
                  bool resume = false);
    ~staged_folder();
    staged_folder(const staged_folder&) = delete;
    staged_folder& operator=(const staged_folder&) = delete;

    /// Where to write.
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return staging_; }

    /// Gives the folder its name. Fails with a sentence, and leaves what was there before.
    void commit();

private:
    std::filesystem::path target_;
    std::filesystem::path staging_;
    bool force_;
    bool resume_;
};

/// Checks what the constructor of `staged_folder` checks, before work that takes long.
void require_writable_target(const std::filesystem::path& target, bool force,
                             const std::vector<std::filesystem::path>& inputs);

/// The same for a single output file.
void require_writable_file(const std::filesystem::path& target, bool force);

/// Writes `text` as a file that appears whole or not at all.
void write_file(const std::filesystem::path& target, std::string_view text);

/// Copies a file through the atomic writer.
void copy_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_STAGING_HPP

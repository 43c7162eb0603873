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
#include <vector>

#include <lowrank/io/containers/staged_folder.hpp>

namespace tool {

/// `lowrank::staged_folder` as a command uses it: a failure ends the command, and what stays for --resume is said.
class staged_folder {
public:
    staged_folder(const std::filesystem::path& target, bool force, const std::vector<std::filesystem::path>& inputs,
                  bool resume = false);
    ~staged_folder();
    staged_folder(const staged_folder&) = delete;
    staged_folder& operator=(const staged_folder&) = delete;

    /// Where to write.
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return folder_.path(); }

    /// Gives the folder its name. Fails with a sentence, and leaves what was there before.
    void commit();

private:
    lowrank::staged_folder folder_;
};

/// Checks what the constructor of `staged_folder` checks, before work that takes long.
void require_writable_target(const std::filesystem::path& target, bool force,
                             const std::vector<std::filesystem::path>& inputs);

/// The same for a single output file.
void require_writable_file(const std::filesystem::path& target, bool force);

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_STAGING_HPP

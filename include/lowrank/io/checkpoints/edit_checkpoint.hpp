// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_EDIT_CHECKPOINT_HPP
#define LOWRANK_IO_CHECKPOINTS_EDIT_CHECKPOINT_HPP

/// \file
/// A checkpoint of any size with some tensors changed by the caller's function, one of them in memory at a time.
///
///     auto done = lowrank::edit_checkpoint(
///         *before, "edited", [](const lowrank::tensor_info& t) { return t.name == "head.weight"; },
///         [](const lowrank::tensor_info&, std::span<std::byte> bytes) {
///             std::ranges::fill(bytes, std::byte{0});
///             return std::vector<double>{};            // numbers for the report
///         });
///
/// With `resume`, an edit that took long is made once, whatever happens to the process.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Changes a tensor's bytes in place and says what it did as numbers, which may be none.
using tensor_edit = std::function<result<std::vector<double>>(const tensor_info&, std::span<std::byte>)>;

struct edit_checkpoint_options {
    /// Keep a journal in the folder, and go on where one says that an earlier call stopped. Edited tensors are kept in
    /// files of their own until the file they belong to is complete.
    bool resume = false;
    std::uint64_t edits = 0;             ///< With `resume`: a checksum of what the edits depend on.
    progress_callback on_progress = {};  ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
};

struct edit_checkpoint_report {
    std::map<std::string, std::vector<double>> edited = {};  ///< By tensor, what the edit said.
    index kept_files = 0;                                    ///< Files an earlier call had finished.
    index kept_edits = 0;                                    ///< Tensors of other files it had edited.
};

/// Writes `base` into the folder `out`: the same files, tensors, types and order, those that `wanted` names changed by
/// `edit`.
///
/// \pre    `out` is not the folder of the base.
/// \return what `edit` says, naming the tensor; `cancelled`; what the writers say. A file appears whole or not at all;
///         the index, written last, makes them a checkpoint. With `resume`, `mismatch` if the folder's journal is of
///         other inputs, `io_failure` if another process is at work there.
/// \cost   One pass; memory for one edited tensor. With `resume`, edited tensors are written twice.
LOWRANK_API [[nodiscard]] result<edit_checkpoint_report> edit_checkpoint(
    const checkpoint& base, const std::filesystem::path& out, const std::function<bool(const tensor_info&)>& wanted,
    const tensor_edit& edit, const edit_checkpoint_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/checkpoints/edit_checkpoint.ipp>
#endif

#endif  // LOWRANK_IO_CHECKPOINTS_EDIT_CHECKPOINT_HPP

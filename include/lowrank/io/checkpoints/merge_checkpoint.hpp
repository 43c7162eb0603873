// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_MERGE_CHECKPOINT_HPP
#define LOWRANK_IO_CHECKPOINTS_MERGE_CHECKPOINT_HPP

/// \file
/// Merge adapters into a checkpoint of any size, shard by shard, with one tile of one weight in memory.
///
///     auto report = lowrank::merge_checkpoint(*before, *poet, "merged");
///     if (!report) return log(report.error().message);
///     log(report->weights.at("model.layers.0.mlp.up_proj.weight").unchanged_fraction());
///
/// The rounding and the audit are those of merge.hpp.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/checkpoints/merge_types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/merge/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct merge_checkpoint_options {
    double strength = 1;                             ///< Factor of the adapter's change; of one adapter only.
    std::size_t tile_bytes = std::size_t{32} << 20;  ///< Of a weight, in memory at a time.
    bool check = false;                              ///< Prove of every tile that unmerging gives back its bits.
    bool resume = false;  ///< Keep a journal in the folder, and go on where one says that an earlier call stopped.
    executor exec = {};   ///< Merges tiles side by side, and writes meanwhile.
    progress_callback on_progress = {};  ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
};

/// What became of the weights the adapters changed.
struct merge_checkpoint_report {
    std::map<std::string, merged_weight> weights = {};
    std::vector<std::string> replaced = {};  ///< Tensors that are the adapter's own (modules_to_save), or some of whose
                                             ///< rows are (trainable_token_indices).
    std::vector<std::string> added = {};     ///< Tensors of the adapters that the base does not have (a new head).
    std::vector<std::string> notes = {};     ///< What was assumed: wrappers between names, orientation, rounded types.
    index kept_files = 0;                    ///< Files an earlier call had finished; see `resume`.
};

/// Writes `base` with the adapters merged into the folder `out`: files, names, types and order as in the base. Adapters
/// of every type that `read_peft` reads; the sum of their changes is rounded once. A tensor that an adapter saves whole
/// takes the place of the base's in the type of the base, at a strength t as W + t (R - W), before it is changed; one that
/// the base lacks is added if modules_to_save names it. Orientation and ties follow the architecture (config.json and the
/// shapes), then the adapter's flag. FP8 weights with scales are merged into: each element becomes the nearest code, and a
/// scale changes only where codes would not reach.
///
/// \pre    `out` is not the folder of the base.
/// \return `mismatch` for a module without a weight of its shape and an adapter without modules, `unsupported` for two
///         adapters of one tensor that is scaled, other quantized weights, and one use of a tied table, all before anything is
///         written; `non_finite` as `merge`; `cancelled`; what the writers say. A file
///         appears whole or not at all; the index, written last, makes them a checkpoint. With `resume`, `mismatch` if
///         the folder's journal is of other inputs, `io_failure` if another process is at work there.
/// \cost   One pass over the files, two over weights with DoRA; memory for the factors of one weight and one tile. Same
///         bytes for every executor, tile size and interruption.
LOWRANK_API [[nodiscard]] result<merge_checkpoint_report> merge_checkpoint(const checkpoint& base,
                                                                           std::span<const adapter_to_merge> adapters,
                                                                           const std::filesystem::path& out,
                                                                           const merge_checkpoint_options& opt = {});

/// The same for one adapter at `opt.strength`.
LOWRANK_API [[nodiscard]] result<merge_checkpoint_report> merge_checkpoint(const checkpoint& base,
                                                                           const peft_adapter& adapter,
                                                                           const std::filesystem::path& out,
                                                                           const merge_checkpoint_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/checkpoints/merge_checkpoint.ipp>
#endif

#endif  // LOWRANK_IO_CHECKPOINTS_MERGE_CHECKPOINT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_DEQUANTIZE_CHECKPOINT_HPP
#define LOWRANK_IO_QUANTIZED_DEQUANTIZE_CHECKPOINT_HPP

/// \file
/// A quantized checkpoint as one of floats, which adapters can be merged into and every program reads.
///
///     auto quantized = lowrank::checkpoint::open("Qwen3-8B-FP8");
///     auto done = lowrank::dequantize_checkpoint(*quantized, "decoded", {.type = lowrank::dtype::bf16});
///     if (!done) return log(done.error().message);

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/quantized/quantized_weight.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct dequantize_options {
    dtype type = dtype::bf16;                        ///< Of the decoded weights: F32, F16 or BF16.
    std::size_t tile_bytes = std::size_t{32} << 20;  ///< Decoded floats in memory at a time, at least one row.
    bool resume = false;                             ///< As in `merge_checkpoint_options`.
    executor exec = {};
    progress_callback on_progress = {};  ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
};

/// What became of one weight.
struct dequantized_weight {
    std::string scheme = {};
    std::vector<std::uint64_t> shape = {};
    double relative_error = 0;     ///< ||rounded - decoded||_F / ||decoded||_F, of the numbers that are finite.
    std::uint64_t not_finite = 0;  ///< NaN and infinities among the decoded numbers.
};

struct dequantize_report {
    std::map<std::string, dequantized_weight> weights = {};
    index kept_files = 0;  ///< Files an earlier call had finished.
};

/// Writes `base` into the folder `out` with every weight that is stored as codes decoded, in float, and rounded once to
/// `opt.type`. Scales and zeros go; all other tensors stay as they are. Files have the names of the base's; a weight is in
/// the file that held its codes.
///
/// \pre    `out` is not the folder of the base; `opt.type` is F32, F16 or BF16.
/// \return what `quantized_weights` says; `not_found` if no weight is stored as codes; `unsupported` for a number beyond
///         the range of the type; `cancelled`; what the writers say. A file appears whole or not at all; the index, written
///         last, makes them a checkpoint. With `resume`, `mismatch` if the folder's journal is of other inputs.
/// \cost   One pass; memory for scales and one tile. Same bytes for every executor, tile size and interruption.
LOWRANK_API [[nodiscard]] result<dequantize_report> dequantize_checkpoint(const checkpoint& base,
                                                                          const std::filesystem::path& out,
                                                                          const dequantize_options& opt = {});

/// The text of config.json for the decoded model: without what it says of quantization, with the float type.
/// \return `invalid_format` for text that is no JSON object.
LOWRANK_API [[nodiscard]] result<std::string> dequantized_config(std::string_view text, dtype type);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/quantized/dequantize_checkpoint.ipp>
#endif

#endif  // LOWRANK_IO_QUANTIZED_DEQUANTIZE_CHECKPOINT_HPP

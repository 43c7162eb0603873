// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_EXTRACT_ADAPTER_HPP
#define LOWRANK_IO_CHECKPOINTS_EXTRACT_ADAPTER_HPP

/// \file
/// The adapter that leads from one checkpoint to another, and adapters at another rank.
///
///     auto found = lowrank::extract_adapter(*before, *after, {.lora = {.rank = lowrank::fixed_rank(16)}});
///     auto why = lowrank::write_peft("what-it-learned", found->adapter);
///     auto small = lowrank::resize_adapter(found->adapter, lowrank::fixed_rank(4));
///
/// Weight by weight, with one difference in memory; the mathematics is that of extract.hpp and resize.hpp.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/convert/extract.hpp>
#include <lowrank/lora/convert/resize.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct extract_adapter_options {
    extraction_options lora = {};
    /// Save tensors that changed and are no matrices (norms, biases) whole, as PEFT's modules_to_save.
    bool keep_others = false;
    /// A folder, made if there is none, for a journal and every factor found, so that a call with the same checkpoints
    /// and options takes them from there. They stay until `forget_parts`, when the adapter is written. None if empty.
    std::filesystem::path parts = {};
    progress_callback on_progress = {};  ///< Tensors; false stops with `cancelled`.
    write_options write = {};            ///< Of the parts.
};

/// What was found in one weight, or kept of one module.
struct adapter_weight_report {
    index rank = 0;
    double relative_error = 0;  ///< ||change - kept||_F / ||change||_F.
    double largest_change = 0;  ///< Of the weight; extraction only.
};

struct extracted_adapter {
    peft_adapter adapter = {};
    std::map<std::string, adapter_weight_report> weights = {};  ///< By tensor.
    std::vector<std::string> unchanged = {};                    ///< Tensors that did not move (enough).
    std::vector<std::string> left_out = {};  ///< Tensors that changed and are not in the adapter, and why.
    index kept_parts = 0;                    ///< Weights that an earlier call had decomposed.
};

/// Removes what `extract_adapter` kept in a folder.
LOWRANK_API void forget_parts(const std::filesystem::path& folder);

/// Extracts LoRA modules from the differences of all matrices named "<module>.weight" that changed. Weights that the
/// architecture stores in x out (GPT-2's) are turned, whatever `lora.fan_in_fan_out` says; it is for others.
///
/// \return `mismatch` if no tensor of one has a partner in the other, or nothing changed; `non_finite` naming the
/// tensor;
///         `cancelled`.
/// \cost   An SVD per changed weight (less with `lora.fast`).
LOWRANK_API [[nodiscard]] result<extracted_adapter> extract_adapter(const checkpoint& base, const checkpoint& tuned,
                                                                    const extract_adapter_options& opt = {});

/// An adapter at another rank, and what each module kept.
struct resized_adapter {
    peft_adapter adapter = {};
    std::map<std::string, adapter_weight_report> modules = {};
};

/// Every LoRA module of an adapter at the rank the rule gives, at the scaling it had.
///
/// \return `unsupported`, naming a module, unless all are plain LoRA; `non_finite`.
/// \cost   6 r^2 (out + in) flops per module.
LOWRANK_API [[nodiscard]] result<resized_adapter> resize_adapter(const peft_adapter& adapter,
                                                                 const rank_choice& choice);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/checkpoints/extract_adapter.ipp>
#endif

#endif  // LOWRANK_IO_CHECKPOINTS_EXTRACT_ADAPTER_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_HPP
#define LOWRANK_IO_PEFT_HPP

/// \file
/// Reads and writes adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors.
///
///     auto adapter = lowrank::read_peft("shakespeare-lora");
///     if (!adapter) return log(adapter.error().message);
///     for (const auto& [module, lora] : adapter->modules) log(module);     // "model.layers.0.self_attn.q_proj"
///     auto why = lowrank::write_peft("copy", *adapter);                    // byte for byte what was read
///
/// Names, shapes and keys follow huggingface/peft, save_pretrained.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The adapters in a folder: the folder itself if it has an adapter_config.json, where PEFT saves the adapter named
/// "default", then its sub-folders that have one, each named like its adapter, sorted. Sub-folders that are symbolic
/// links are left out.
///
/// \return empty where there is none; `not_found` for what is no folder, `io_failure` for one that cannot be listed.
LOWRANK_API [[nodiscard]] result<std::vector<std::filesystem::path>> peft_folders(const std::filesystem::path& folder);

/// Reads an adapter folder. Without an adapter_config.json in it, its only sub-folder that has one is read, with a
/// warning: PEFT saves an adapter that is not named "default" there.
///
/// \return `not_found`; `invalid_format` for a broken file, a factor without its partner; `mismatch` for ranks that
///         disagree, transposed factors, a pattern that matches no module; `non_finite`; `unsupported` for pickles
///         and whatever else would change the result. The sentence names the tensor or key.
/// \cost   one copy of the factors in float.
LOWRANK_API [[nodiscard]] result<peft_adapter> read_peft(const std::filesystem::path& given,
                                                         const peft_read_options& opt = {});

/// A configuration that fits `modules`: the most frequent rank and alpha, patterns for the others, their last names as
/// targets. The other fields are those of `base`.
/// \pre all modules agree on use_rslora.
LOWRANK_API [[nodiscard]] peft_lora_config peft_config_for(const std::map<std::string, lora_adapter<float>>& modules,
                                                           peft_lora_config base = {});

/// The same for every module of an adapter, relatives included: peft_type, use_dora, lora_bias, feedforward_modules and
/// target modules follow from them; rank and alpha of each module go into the patterns.
/// \pre all modules are of one peft_type and agree on use_rslora.
LOWRANK_API [[nodiscard]] peft_lora_config peft_config_for(const peft_adapter& adapter, peft_lora_config base = {});

/// Writes an adapter folder, which is created if need be.
///
/// \return `mismatch` if the configuration does not describe the modules (`peft_config_for` makes one that does);
///         `non_finite`; `io_failure`. On failure an older adapter in the folder stays as it was.
LOWRANK_API [[nodiscard]] status write_peft(const std::filesystem::path& folder, const peft_adapter& adapter,
                                            const write_options& opt = {});

/// The numbers a module trains. VeRA's shared projections are frozen and not counted.
LOWRANK_API [[nodiscard]] std::uint64_t parameter_count(const peft_module& relative);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_HPP

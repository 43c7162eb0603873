// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_HPP
#define LOWRANK_IO_PEFT_HPP

/// \file
/// Reads and writes adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors.
///
///     auto adapter = lowrank::read_peft("shakespeare-lora");
///     if (!adapter) return log(adapter.error().message);
///     for (const auto& [path, module] : adapter->modules) log(path);       // "model.layers.0.self_attn.q_proj"
///     auto why = lowrank::write_peft("copy", *adapter);                    // byte for byte what was read
///
/// Names, shapes and keys follow huggingface/peft, save_pretrained.

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

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

/// A configuration that describes every module: peft_type, options and target modules follow from them, rank and alpha
/// are the most frequent ones, those of other modules are in the patterns. What else `base` says is kept.
/// \pre all modules are of one peft_type and agree on use_rslora.
LOWRANK_API [[nodiscard]] peft_lora_config peft_config_for(const std::map<std::string, peft_module>& modules,
                                                           peft_lora_config base = {});
LOWRANK_API [[nodiscard]] peft_lora_config peft_config_for(const peft_adapter& adapter, peft_lora_config base = {});

/// Writes an adapter folder, which is created if need be.
///
/// \return `mismatch` if the configuration does not describe the modules (`peft_config_for` makes one that does);
///         `unsupported` for a module that PEFT's files cannot hold; `non_finite`; `io_failure`. On failure an older
///         adapter in the folder stays as it was.
LOWRANK_API [[nodiscard]] status write_peft(const std::filesystem::path& folder, const peft_adapter& adapter,
                                            const write_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_HPP

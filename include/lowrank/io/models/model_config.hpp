// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_MODEL_CONFIG_HPP
#define LOWRANK_IO_MODELS_MODEL_CONFIG_HPP

/// \file
/// The config.json of a model of transformers: its shape, read once for everybody, and written.
///
///     const auto config = lowrank::read_model_config("base/config.json");
///     if (!config) return log(config.error().message);
///     log(config->num_attention_heads);
///
/// Null counts as absent, as in transformers. Keys that are not read change nothing here.

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/models/architecture.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Reads the text of a config.json. Absent key-value heads are the heads, an absent head_dim is hidden_size / heads, an
/// absent model_type is "llama"; sizes that are absent are 0.
///
/// \return `invalid_format` for broken JSON, a value of the wrong type, heads that are not between 1 and 2^20;
///         `unsupported` for an architecture that is not in the list.
LOWRANK_API [[nodiscard]] result<model_config> parse_model_config(
    std::string_view text, std::span<const architecture> among = known_architectures());

/// The same of a file. \return also `not_found`.
LOWRANK_API [[nodiscard]] result<model_config> read_model_config(
    const std::filesystem::path& config_json, std::span<const architecture> among = known_architectures());

/// The text of a config.json as transformers reads it, of an architecture in the list.
LOWRANK_API [[nodiscard]] result<std::string> model_config_text(
    const model_config& config, std::span<const architecture> among = known_architectures());

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/models/model_config.ipp>
#endif

#endif  // LOWRANK_IO_MODELS_MODEL_CONFIG_HPP

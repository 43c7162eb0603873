// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_GGUF_MODEL_HPP
#define LOWRANK_IO_MODELS_GGUF_MODEL_HPP

/// \file
/// A model between a transformers folder and GGUF, tensor by tensor, floats bit for bit.
///
///     auto why = lowrank::write_gguf_model("model.gguf", "Llama-folder", {.tokenizer = entries});
///     auto report = lowrank::write_hf_model("folder", *lowrank::gguf_file::open("model-Q4_K_M.gguf"));
///
/// Names, the order of rows of q and k, and fused weights change, numbers do not; quantized tensors come out as F32. The
/// config.json is stored under the key `lowrank.hf_config`, so that `write_hf_model` restores the same text.
/// Keys as ggml-org/llama.cpp writes them.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/gguf.hpp>
#include <lowrank/io/models/architecture.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct gguf_model_options {
    std::string name = {};                   ///< general.name; empty: that of the folder.
    std::vector<gguf_entry> tokenizer = {};  ///< The tokenizer.ggml.* keys, without which llama.cpp loads no model.
    progress_callback on_progress = {};      ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
    std::span<const architecture> architectures = known_architectures();
};

/// Writes a GGUF of the transformers folder `from` (config.json, model.safetensors or shards).
///
/// \return `unsupported` for an architecture that is not in the list, a tensor without a GGUF name, integer tensors;
///         `mismatch` if rows do not fit the heads; `cancelled`; what the readers and the writer say. The file appears
///         whole or not at all.
/// \cost   One pass; one q or k projection in memory.
LOWRANK_API [[nodiscard]] status write_gguf_model(const std::filesystem::path& path, const std::filesystem::path& from,
                                                  const gguf_model_options& opt = {});

struct hf_model_options {
    std::uint64_t file_bytes = 5'000'000'000;  ///< Of tensors; more become several files and an index.
    bool resume = false;  ///< Keep a journal in the folder, and go on where one says that an earlier call stopped.
    progress_callback on_progress = {};  ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
    std::span<const architecture> architectures = known_architectures();
};

/// What became of the tensors.
struct hf_model_report {
    std::size_t copied = 0;                 ///< Bit for bit.
    std::vector<std::string> decoded = {};  ///< Quantized ones, now F32.
    index kept_files = 0;                   ///< Files an earlier call had finished.
};

/// Writes model.safetensors, or several files and their index, and config.json of a GGUF model into `folder`.
///
/// \return `unsupported` for an architecture that is not in the list, a tensor without a name in transformers (as
///         rope_freqs) or a type without a decoder; `invalid_format` if a key of the model's shape or a part of a fused
///         weight is missing; `cancelled`; what the writer says. With `resume`, `mismatch` if the folder's journal is of
///         another file or other options.
/// \cost   One pass; one decoded tensor in memory.
LOWRANK_API [[nodiscard]] result<hf_model_report> write_hf_model(const std::filesystem::path& folder,
                                                                 const gguf_file& model,
                                                                 const hf_model_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/models/gguf_model.ipp>
#endif

#endif  // LOWRANK_IO_MODELS_GGUF_MODEL_HPP

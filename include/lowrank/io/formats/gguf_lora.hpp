// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_GGUF_LORA_HPP
#define LOWRANK_IO_FORMATS_GGUF_LORA_HPP

/// \file
/// LoRA adapters as llama.cpp loads them, and the way from and to PEFT.
///
///     auto adapter = lowrank::read_peft("shakespeare-lora");
///     auto model = lowrank::read_model_config("base/config.json");
///     auto why = lowrank::write_gguf_lora("shakespeare.gguf", *adapter, *model);
///
/// llama.cpp scales every tensor by alpha / r with one alpha, so rsLoRA and alpha_pattern are multiplied into lora_b.
/// Format: ggml-org/llama.cpp, llama-adapter.cpp.

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/gguf.hpp>
#include <lowrank/io/formats/adapter_format.hpp>
#include <lowrank/io/models/architecture.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A LoRA adapter in GGUF's names and row order.
struct gguf_lora {
    std::string architecture = {};
    std::string name = {};
    float alpha = 0;  ///< 0: the file gives none, and each tensor has scaling 1.
    /// By base tensor, "blk.0.attn_q.weight". For token_embd.weight the table changes by the transpose of the delta.
    std::map<std::string, lora_adapter<float>> tensors = {};
    /// aLoRA: the adapter applies from the last occurrence of these tokens on.
    std::vector<std::uint32_t> alora_invocation_tokens = {};
    std::vector<std::string> warnings = {};
};

struct gguf_lora_read_options {
    /// Accept an adapter that applies only from its invocation tokens on (aLoRA): the caller sees to it.
    bool activated_by_tokens = false;
};

/// The LoRA adapter of an open GGUF file.
///
/// \return `invalid_format` if it is no adapter or a half is missing; `mismatch` for different ranks; `non_finite`,
///         also for alpha; `unsupported` for integer tensors, experts, and other adapter types.
LOWRANK_API [[nodiscard]] result<gguf_lora> read_gguf_lora(const gguf_file& file,
                                                           const gguf_lora_read_options& opt = {});
LOWRANK_API [[nodiscard]] result<gguf_lora> read_gguf_lora(const std::filesystem::path& path,
                                                           const gguf_lora_read_options& opt = {});

/// Whether every tensor of an adapter has a partner of its shape in the base model.
/// \return `mismatch` naming the tensor or the architecture.
LOWRANK_API [[nodiscard]] status check_gguf_base(const gguf_lora& adapter, const gguf_file& base);

struct gguf_lora_options {
    ggml_type type = ggml_type::f32;  ///< One that can be encoded.
    std::string name = "lowrank";
    write_options write = {};
};

/// Writes a PEFT adapter of a model for llama.cpp. One alpha, the configuration's, serves all tensors; where a module's
/// scaling differs from alpha / r, lora_b is multiplied by the quotient, one rounding per entry.
///
/// \return `unsupported` for an architecture that is not in the list, modules that have no GGUF name, tensors that
///         replace ones of the base, and an output layer that is tied to the embedding; `mismatch` if rows do not fit the
///         heads.
LOWRANK_API [[nodiscard]] status write_gguf_lora(const std::filesystem::path& path, const peft_adapter& adapter,
                                                 const model_config& model, const gguf_lora_options& opt = {},
                                                 std::span<const architecture> among = known_architectures());

/// The PEFT adapter of a GGUF adapter for a model: names and rows as in transformers, factors as they are.
///
/// \return `unsupported` for an architecture that is not in the list, a tensor without a name in transformers, and parts
///         of a fused weight that share no lora_a; `mismatch` for another architecture than the model's or if rows do not
///         fit the heads.
LOWRANK_API [[nodiscard]] result<peft_adapter> peft_from_gguf(
    const gguf_lora& adapter, const model_config& model, std::span<const architecture> among = known_architectures());

/// llama.cpp's adapters in the list of formats.
LOWRANK_API [[nodiscard]] adapter_format gguf_format();

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/gguf_lora.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_GGUF_LORA_HPP

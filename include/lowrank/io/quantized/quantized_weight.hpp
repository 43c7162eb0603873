// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_QUANTIZED_WEIGHT_HPP
#define LOWRANK_IO_QUANTIZED_QUANTIZED_WEIGHT_HPP

/// \file
/// The weights of quantized checkpoints: found by their tensors, decoded to float some rows at a time.
///
///     auto quantized = lowrank::checkpoint::open("Qwen3-8B-FP8");
///     auto found = lowrank::quantized_weights(*quantized);
///     if (!found) return log(found.error().message);
///     for (const lowrank::quantized_weight& w : *found) {
///         std::vector<float> row(static_cast<std::size_t>(w.cols()));
///         w.decode(0, 1, row.data());                    // the first row
///     }
///
/// | scheme | tensors of `up_proj` | element [o, i] |
/// |---|---|---|
/// | FP8, int8 with scales | `weight` and `weight_scale_inv`, `weight_scale`, `scale_weight`, `qscale_weight` | (code - zero) * scale of its block, row or tensor |
/// | bitsandbytes 8-bit | `weight` I8, `SCB` | code * SCB[o] * (1 / 127) |
/// | bitsandbytes 4-bit | `weight` U8, `.absmax`, `.quant_map`, `.quant_state.*` | map[code] * absmax of 64 or so |
/// | GPTQ | `qweight`, `qzeros`, `scales`, `g_idx` | (code - zero) * scale of its group |
/// | AWQ | `qweight`, `qzeros`, `scales` | the same, nibbles in another order |
/// | compressed-tensors integers | `weight_packed` I32, `weight_scale`, `weight_shape` | the same |
/// | NVFP4 | `weight_packed` or `weight` U8, `weight_scale` E4M3, `weight_global_scale` or `weight_scale_2` | E2M1 * scale of 16 |
/// | MXFP4 | `weight_packed` U8, `weight_scale` E8M0; `*_blocks` and `*_scales` of gpt-oss | E2M1 * scale of 32 |
///
/// Layouts: vllm-project/compressed-tensors, ModelCloud/GPTQModel, bitsandbytes-foundation/bitsandbytes,
/// huggingface/transformers (integrations), ggml-org/llama.cpp (conversion).

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A weight as codes and scales, the bytes of their tensors.
struct encoded_weight {
    std::vector<std::byte> codes = {};
    std::vector<std::byte> scales = {};
};

/// A weight that a checkpoint stores as codes. Keeps the checkpoint's files open.
struct quantized_weight {
    std::string name = {};                  ///< Of the weight once it is decoded: `model.layers.0.mlp.up_proj.weight`.
    std::string scheme = {};                ///< "GPTQ, 4 bits"
    std::vector<std::uint64_t> shape = {};  ///< Once decoded.
    /// The tensors that it is made of, the one with the codes first. Scales of activations, which nothing needs once the
    /// weight is decoded, are among them.
    std::vector<std::string> parts = {};
    std::string scales = {};  ///< The part with the scales that `encode` gives; empty if the codes have none.
    /// Writes `count` rows from row `first` on, each of `cols()` floats. Safe to call concurrently.
    std::function<void(index first, index count, float* out)> decode = {};
    /// The nearest codes of another weight of this shape, which becomes what they stand for, and their scales: those of
    /// before, but for the ones whose codes would end below the largest number, which become just large enough. Empty for
    /// a scheme that cannot be written.
    std::function<encoded_weight(float* w)> encode = {};

    [[nodiscard]] index cols() const noexcept { return static_cast<index>(shape.back()); }
    /// All dimensions but the last, together.
    [[nodiscard]] index rows() const noexcept {
        index n = 1;
        for (std::size_t i = 0; i + 1 < shape.size(); ++i) {
            n *= static_cast<index>(shape[i]);
        }
        return n;
    }
};

/// What config.json says of the quantization: `quantization_config`, or `compression_config`.
struct quantization_config {
    std::string method = {};               ///< "gptq", "fp8", ...; empty without a configuration.
    std::string format = {};               ///< `format`, `checkpoint_format` or `version`, by the method.
    int bits = 0;                          ///< 0: not said.
    std::optional<dtype> float_type = {};  ///< `torch_dtype` or `dtype`: what the model computes in.
    std::vector<index> block_shape = {};   ///< `weight_block_size`: rows and columns that share a scale.
};

/// Reads config.json in the folder of the checkpoint; without one everything is empty.
/// \return `invalid_format` for a value of the wrong type.
LOWRANK_API [[nodiscard]] result<quantization_config> read_quantization_config(const checkpoint& base);

/// One way to store weights as codes.
struct quantization_scheme {
    std::string_view name;
    /// The weight whose codes are the tensor; nothing if it is none of this scheme; or why it cannot be decoded.
    result<std::optional<quantized_weight>> (*recognize)(const checkpoint& base, const quantization_config& config,
                                                         const tensor_info& codes);
};

/// The schemes of the table above.
LOWRANK_API [[nodiscard]] std::span<const quantization_scheme> quantization_schemes();

/// Every weight of the checkpoint that is stored as codes, in the order of the tensors that hold them. Empty where all
/// weights are floats.
///
/// \return `unsupported` for a method or a layout that no scheme decodes, and for codes that belong to no scheme;
///         `mismatch` for parts whose shapes do not fit, or that are missing.
/// \cost   Reads scales and zeros; codes are read when they are decoded.
LOWRANK_API [[nodiscard]] result<std::vector<quantized_weight>> quantized_weights(
    const checkpoint& base, std::span<const quantization_scheme> schemes = quantization_schemes());

/// The weight with these codes if it can be encoded again: FP8 with scales of a float type, or without. Nothing for all
/// else.
LOWRANK_API [[nodiscard]] std::optional<quantized_weight> encodable_weight(const checkpoint& base,
                                                                           const tensor_info& codes);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/quantized/quantized_weight.ipp>
#endif

#endif  // LOWRANK_IO_QUANTIZED_QUANTIZED_WEIGHT_HPP

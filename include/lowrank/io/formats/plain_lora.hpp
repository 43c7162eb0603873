// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_PLAIN_LORA_HPP
#define LOWRANK_IO_FORMATS_PLAIN_LORA_HPP

/// \file
/// An adapter of any type as plain LoRA, for programs that know nothing else (llama.cpp, kohya's, MLX's).
///
///     auto plain = lowrank::to_plain_lora(*poet, &*before, {.rank = lowrank::fixed_rank(16)});
///     if (!plain) return log(plain.error().message);
///     log(plain->relative_errors.at("model.layers.0.self_attn.q_proj"));
///
/// What is a product of two factors already is copied. Scales, magnitudes, rotations, and products of full rank change a
/// weight by W' - W, which is formed, one weight in memory at a time, and cut by its SVD.

#include <map>
#include <string>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct plain_lora_options {
    /// Of changes that are no product of two small factors.
    rank_choice rank = {.rule = rank_rule::relative_error, .value = 1e-4, .min_rank = 1};
};

/// The adapter, and what its SVDs lost.
struct plain_lora_adapter {
    peft_adapter adapter = {};
    /// ||change - kept||_F / ||change||_F of each module that was cut.
    std::map<std::string, double> relative_errors = {};
};

/// The same adapter in plain LoRA modules. `base` may be null if nothing scales its weight.
///
/// \return `unsupported` for a bias on lora_B, convolutions, changes of a bias that the base has, and without a base a scaled weight and one of over 2^28
///         entries; `mismatch` for a base of another model; as `to_lora`.
/// \cost   An SVD per scaled weight and per product of full rank.
LOWRANK_API [[nodiscard]] result<plain_lora_adapter> to_plain_lora(const peft_adapter& adapter,
                                                                   const checkpoint* base = nullptr,
                                                                   const plain_lora_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/plain_lora.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_PLAIN_LORA_HPP

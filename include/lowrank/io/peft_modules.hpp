// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_MODULES_HPP
#define LOWRANK_IO_PEFT_MODULES_HPP

/// \file
/// What a PEFT adapter can hold for a module besides plain LoRA, and what each does to a weight.
///
///     for (const auto& [module, relative] : adapter.relatives) {
///         const lowrank::peft_change change = lowrank::change_of(relative);   // delta, magnitude, scales, bias
///     }
///
/// Names and shapes follow huggingface/peft.

#include <concepts>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <variant>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adalora.hpp>
#include <lowrank/lora/loha.hpp>
#include <lowrank/lora/lokr.hpp>
#include <lowrank/lora/lora.hpp>
#include <lowrank/lora/vera.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// LoRA with what PEFT may add to it: DoRA's magnitude, a bias on lora_B, the kernel of a convolution.
struct peft_lora {
    /// Of a convolution: A is r x (in * taps), B is out x r, block-diagonal if there are groups.
    lora_adapter<float> lora = {};
    vector<float> magnitude = {};            ///< DoRA: lengths of the rows of W + delta; empty: no DoRA.
    vector<float> bias = {};                 ///< Of lora_B: the layer's bias changes by scaling * bias; empty: none.
    std::vector<std::uint64_t> kernel = {};  ///< Of a convolution: {kw}, {kh, kw} or {kd, kh, kw}; empty: linear.
    index groups = 1;                        ///< Of a convolution.
    bool is_table = false;                   ///< Of an embedding: A is r x tokens, B is dim x r.
};

/// (IA)^3: W' = diag(scale) W, or W diag(scale) for feed-forward modules.
struct peft_ia3 {
    vector<float> scale = {};
    bool is_feedforward = false;   ///< Scales inputs instead of outputs (and of the bias).
    index spatial_dimensions = 0;  ///< 2 for a 2-d convolution, 0 for a linear layer.
};

/// What changes one module, in its own parameters.
using peft_module = std::variant<peft_lora, adalora_adapter<float>, loha_adapter<float>, lokr_adapter<float>,
                                 vera_adapter<float>, peft_ia3>;

/// What a module does to its layer: W' = diag(output_scale) (W + delta) diag(input_scale), where DoRA's output_scale
/// is magnitude / the row lengths of W + delta. Empty members change nothing.
struct peft_change {
    low_rank<float> delta = {};  ///< out x in; the weight of a convolution as out x (in * taps).
    vector<float> magnitude = {};
    vector<float> output_scale = {};
    vector<float> input_scale = {};  ///< One per input channel.
    vector<float> bias = {};         ///< Is added to the layer's bias.
    bool is_table = false;           ///< The weight is the transpose: tokens x dim.

    [[nodiscard]] bool has_delta() const noexcept { return delta.left.size() != 0 || delta.right.size() != 0; }
};

/// What a module does. `in` is the width of the weight, which VeRA does not store: its layers use the first columns of
/// a shared projection. \cost copies the factors; LoHa and LoKr form theirs.
[[nodiscard]] inline peft_change change_of(const peft_module& module, std::optional<index> in = std::nullopt) {
    return std::visit(
        [&](const auto& m) {
            using M = std::decay_t<decltype(m)>;
            peft_change out;
            if constexpr (std::same_as<M, peft_lora>) {
                out = {.delta = m.lora.delta(), .magnitude = m.magnitude, .is_table = m.is_table};
                if (m.bias.size() != 0) {
                    out.bias = m.lora.scaling() * m.bias;
                }
            } else if constexpr (std::same_as<M, peft_ia3>) {
                (m.is_feedforward ? out.input_scale : out.output_scale) = m.scale;
            } else if constexpr (std::same_as<M, vera_adapter<float>>) {
                vera_adapter<float> fitted = m;
                fitted.in = in.value_or(m.in);
                out.delta = fitted.delta();
            } else {
                out.delta = m.delta();
            }
            return out;
        },
        module);
}

/// "DoRA", "LoHa", ...: for messages.
[[nodiscard]] inline const char* kind_of(const peft_module& module) {
    constexpr const char* names[] = {"LoRA", "AdaLoRA", "LoHa", "LoKr", "VeRA", "(IA)^3"};
    if (const auto* lora = std::get_if<peft_lora>(&module)) {
        return lora->magnitude.size() != 0 ? "DoRA"
               : !lora->kernel.empty()     ? "LoRA of a convolution"
               : lora->bias.size() != 0    ? "LoRA with a bias"
                                           : "LoRA";
    }
    return names[module.index()];
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_MODULES_HPP

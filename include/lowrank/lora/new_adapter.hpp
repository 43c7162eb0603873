// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_NEW_ADAPTER_HPP
#define LOWRANK_LORA_NEW_ADAPTER_HPP

/// \file
/// How a fresh adapter of any kind is made for a layer, without knowing which kind it is.
///
///     lowrank::adapted_layers all;
///     all.add(w.rows(), w.cols());                                                  // every layer
///     const auto* kind = lowrank::find_makeable_kind<float>("lora");                // kinds/list.hpp
///     auto make = kind->make(all, {.r = 8, .lora_alpha = 16});
///     lowrank::any_adapter<float> a = (*make)({.base = lowrank::as_operator(w), .number = 3});
///
/// The options are those of LoRA; the rank means what comes nearest to it in each kind: a size of blocks, a number of
/// reflections, a number of groups. What a kind cannot do (dropout) is refused, not ignored.

#include <cstdint>
#include <numeric>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What a new adapter looks like.
struct lora_options {
    index r = 8;               ///< Rank.
    double lora_alpha = 8;     ///< Numerator of the scaling.
    bool use_rslora = false;   ///< Scale by alpha / sqrt(r) instead of alpha / r.
    double lora_dropout = 0;   ///< Probability in [0, 1) that training drops an entry of x on its way to A.
    std::uint64_t seed = 0;    ///< Same seed and stream, same A, on every machine.
    std::uint64_t stream = 0;  ///< One per layer, so that layers start differently.
};

/// All layers that get adapters, as far as kinds with something in common need to know them.
struct adapted_layers {
    index max_out = 1;  ///< The largest outputs and inputs: for factors that all layers share.
    index max_in = 1;
    index common_in = 0;     ///< The greatest common divisor of the inputs: for one size of blocks.
    index common_out = 0;    ///< Of the outputs.
    index largest_rank = 0;  ///< The largest r with r (out + in) <= out in for every layer; before the first one 0.

    /// That of inputs and outputs.
    [[nodiscard]] index common_size() const { return std::gcd(common_in, common_out); }

    void add(index out, index in) {
        const index rank = out + in > 0 ? out * in / (out + in) : 0;
        largest_rank = common_out == 0 || rank < largest_rank ? rank : largest_rank;
        max_out = out > max_out ? out : max_out;
        max_in = in > max_in ? in : max_in;
        common_in = std::gcd(common_in, in);
        common_out = std::gcd(common_out, out);
    }
};

/// One layer that gets an adapter.
template <real S>
struct target_layer {
    operator_reference<S> base;   ///< Its weight.
    std::uint64_t number = 0;     ///< One per layer, so that layers start differently.
    bool is_feedforward = false;  ///< The last product of a feed-forward block, whose inputs some kinds scale.
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_NEW_ADAPTER_HPP

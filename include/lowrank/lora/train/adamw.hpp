// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_ADAMW_HPP
#define LOWRANK_LORA_TRAIN_ADAMW_HPP

/// \file
/// AdamW over any list of parameters, with groups.
///
///     auto gradient = lowrank::zero_gradient(adapter);
///     std::vector<lowrank::trainable<float>> list;
///     lowrank::append(list, adapter, gradient, 0, 1);  // lora_A in group 0, lora_B in group 1
///     auto state = lowrank::make_adamw_state(list);
///     lowrank::clip_gradients(list, 1.0);
///     lowrank::adamw_step(list, state, {.groups = {{.learning_rate = 1e-3}, {.learning_rate = 1e-2}}});
///
/// Loshchilov, Hutter, Decoupled weight decay regularization, arXiv 1711.05101; numbers as torch.optim.AdamW.

#include <cstdint>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/train/trainable.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What all groups share. PyTorch's defaults.
struct adamw_options {
    std::vector<parameter_group> groups = {parameter_group{}};
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    bool decoupled = true;  ///< false: weight decay enters the gradient instead (Adam, as torch.optim.Adam).
};

/// Running moments, one vector per trainable, and the number of steps taken. Save all three to resume bit for bit.
template <real S>
struct adamw_state {
    std::vector<vector<S>> first = {};
    std::vector<vector<S>> second = {};
    std::int64_t steps = 0;
};

/// Moments of the right sizes, all zero.
template <real S>
[[nodiscard]] adamw_state<S> make_adamw_state(const std::vector<trainable<S>>& list);

/// One step, in place, for t = ++state.steps and every entry p with gradient g:
///
///     p *= 1 - lr wd;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
///     p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
///
/// \pre  `state` was made for this list; each group exists.
/// \cost One pass over values, gradients and both moments. Allocates nothing.
/// \note Bit-equal for one binary and CPU.
template <real S>
void adamw_step(const std::vector<trainable<S>>& list, adamw_state<S>& state, const adamw_options& options = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/train/adamw.ipp>
#endif

#endif  // LOWRANK_LORA_TRAIN_ADAMW_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_SGD_HPP
#define LOWRANK_LORA_TRAIN_SGD_HPP

/// \file
/// Stochastic gradient descent with momentum, Nesterov's variant and weight decay, over any list of parameters.
///
///     auto state = lowrank::make_sgd_state(list, {.momentum = 0.9});
///     lowrank::sgd_step(list, state, {.groups = {{.learning_rate = 0.05, .weight_decay = 0}}, .momentum = 0.9});
///
/// Numbers as torch.optim.SGD (Sutskever et al., On the importance of initialization and momentum, ICML 2013).

#include <cstdint>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/train/trainable.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What all groups share.
struct sgd_options {
    std::vector<parameter_group> groups = {parameter_group{.learning_rate = 1e-2, .weight_decay = 0}};
    double momentum = 0;    ///< In [0, 1). 0 keeps no buffers.
    double dampening = 0;   ///< The gradient enters a buffer times 1 - dampening, but whole at the first step.
    bool nesterov = false;  ///< Step along g + momentum * buffer; needs momentum and no dampening.
};

/// One buffer per trainable (none without momentum) and the number of steps. Save both to resume bit for bit.
template <real S>
struct sgd_state {
    std::vector<vector<S>> momentum = {};
    std::int64_t steps = 0;
};

/// Buffers of the right sizes, all zero.
template <real S>
[[nodiscard]] sgd_state<S> make_sgd_state(const std::vector<trainable<S>>& list, const sgd_options& options = {});

/// One step, in place, for every entry p with gradient g:
///
///     g += wd p;  b = momentum b + (1 - dampening) g  (b = g at the first step);  p -= lr b
///
/// and with `nesterov` p -= lr (g + momentum b).
///
/// \pre  `state` was made for this list and these options; each group exists; momentum in [0, 1).
/// \cost One pass over values, gradients and buffers. Allocates nothing.
/// \note Bit-equal for one binary and CPU.
template <real S>
void sgd_step(const std::vector<trainable<S>>& list, sgd_state<S>& state, const sgd_options& options = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/train/sgd.ipp>
#endif

#endif  // LOWRANK_LORA_TRAIN_SGD_HPP

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

#include <cstddef>
#include <cstdint>
#include <vector>

#include <lowrank/core/check.hpp>
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
[[nodiscard]] sgd_state<S> make_sgd_state(const std::vector<trainable<S>>& list, const sgd_options& options = {}) {
    sgd_state<S> state;
    if (options.momentum != 0) {
        for (const auto& t : list) {
            state.momentum.push_back(vector<S>::Zero(static_cast<index>(t.value.size())));
        }
    }
    return state;
}

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
void sgd_step(const std::vector<trainable<S>>& list, sgd_state<S>& state, const sgd_options& options = {}) {
    detail::check_trainables("sgd_step", list, options.groups.size());
    detail::expects(0 <= options.momentum && options.momentum < 1, "sgd_step: momentum must be in [0, 1)");
    detail::expects(!options.nesterov || (options.momentum > 0 && options.dampening == 0),
                    "sgd_step: nesterov needs momentum and no dampening");
    const bool buffered = options.momentum != 0;
    detail::expects(state.momentum.size() == (buffered ? list.size() : 0),
                    "sgd_step: the state was made for another list");
    for (std::size_t k = 0; k < state.momentum.size(); ++k) {
        detail::expects(state.momentum[k].size() == static_cast<index>(list[k].value.size()),
                        "sgd_step: the state was made for another list");
    }
    const bool first = state.steps++ == 0;
    const auto keep = static_cast<S>(first ? 0.0 : options.momentum);
    const auto take = static_cast<S>(first ? 1.0 : 1 - options.dampening);
    const auto ahead = static_cast<S>(options.momentum);
    for (std::size_t k = 0; k < list.size(); ++k) {
        const auto& group = options.groups[static_cast<std::size_t>(list[k].group)];
        const auto rate = static_cast<S>(group.learning_rate);
        const auto decay = static_cast<S>(group.weight_decay);
        S* p = list[k].value.data();
        const S* gradient = list[k].gradient.data();
        const std::size_t size = list[k].value.size();
        if (!buffered) {
            for (std::size_t i = 0; i < size; ++i) {
                p[i] -= rate * (gradient[i] + decay * p[i]);
            }
            continue;
        }
        S* buffer = state.momentum[k].data();
        for (std::size_t i = 0; i < size; ++i) {
            const S g = gradient[i] + decay * p[i];
            buffer[i] = keep * buffer[i] + take * g;
            p[i] -= rate * (options.nesterov ? g + ahead * buffer[i] : buffer[i]);
        }
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_SGD_HPP

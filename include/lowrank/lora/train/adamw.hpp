// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_ADAMW_HPP
#define LOWRANK_LORA_TRAIN_ADAMW_HPP

/// \file
/// AdamW over any list of parameters, with groups.
///
///     std::vector<lowrank::trainable<float>> list;
///     lowrank::append(list, adapter, gradient, 0, 1);  // lora_A in group 0, lora_B in group 1
///     auto state = lowrank::make_adamw_state(list);
///     lowrank::clip_gradients(list, 1.0);
///     lowrank::adamw_step(list, state, {.groups = {{.learning_rate = 1e-3}, {.learning_rate = 1e-2}}});
///
/// Loshchilov, Hutter, Decoupled weight decay regularization, arXiv 1711.05101; numbers as torch.optim.AdamW.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <lowrank/core/check.hpp>
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
[[nodiscard]] adamw_state<S> make_adamw_state(const std::vector<trainable<S>>& list) {
    adamw_state<S> state;
    for (const auto& t : list) {
        state.first.push_back(vector<S>::Zero(static_cast<index>(t.value.size())));
        state.second.push_back(vector<S>::Zero(static_cast<index>(t.value.size())));
    }
    return state;
}

/// One step, in place, for t = ++state.steps and every entry p with gradient g:
///
///     p *= 1 - lr wd;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
///     p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
///
/// \pre  `state` was made for this list; each group exists.
/// \cost One pass over values, gradients and both moments. Allocates nothing.
/// \note Bit-equal for one binary and CPU.
template <real S>
void adamw_step(const std::vector<trainable<S>>& list, adamw_state<S>& state, const adamw_options& options = {}) {
    detail::check_trainables("adamw_step", list, options.groups.size());
    detail::expects(state.first.size() == list.size() && state.second.size() == list.size(),
                    "adamw_step: the state was made for another list");
    for (std::size_t k = 0; k < list.size(); ++k) {
        const auto size = static_cast<index>(list[k].value.size());
        detail::expects(state.first[k].size() == size && state.second[k].size() == size,
                        "adamw_step: the state was made for another list");
    }
    ++state.steps;
    const auto t = static_cast<double>(state.steps);
    const double correction1 = 1 - std::pow(options.beta1, t);
    const double correction2 = std::sqrt(1 - std::pow(options.beta2, t));
    const auto b1 = static_cast<S>(options.beta1);
    const auto b2 = static_cast<S>(options.beta2);
    const auto rest1 = static_cast<S>(1 - options.beta1);
    const auto rest2 = static_cast<S>(1 - options.beta2);
    const auto root_correction = static_cast<S>(correction2);
    const auto epsilon = static_cast<S>(options.epsilon);
    for (std::size_t k = 0; k < list.size(); ++k) {
        const auto& group = options.groups[static_cast<std::size_t>(list[k].group)];
        const auto decay = static_cast<S>(options.decoupled ? 1 - group.learning_rate * group.weight_decay : 1.0);
        const auto coupled = static_cast<S>(options.decoupled ? 0.0 : group.weight_decay);
        const auto step = static_cast<S>(group.learning_rate / correction1);
        S* p = list[k].value.data();
        const S* gradient = list[k].gradient.data();
        S* m = state.first[k].data();
        S* v = state.second[k].data();
        const std::size_t size = list[k].value.size();
        for (std::size_t i = 0; i < size; ++i) {
            const S g = gradient[i] + coupled * p[i];
            m[i] = b1 * m[i] + rest1 * g;
            v[i] = b2 * v[i] + rest2 * g * g;
            p[i] = decay * p[i] - step * m[i] / (std::sqrt(v[i]) / root_correction + epsilon);
        }
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_ADAMW_HPP

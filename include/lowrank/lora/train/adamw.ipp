// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_ADAMW_IPP
#define LOWRANK_LORA_TRAIN_ADAMW_IPP

#include <lowrank/lora/train/adamw.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
adamw_state<S> make_adamw_state(const std::vector<trainable<S>>& list) {
    adamw_state<S> state;
    for (const auto& t : list) {
        state.first.emplace_back().setZero(static_cast<index>(t.value.size()));
        state.second.emplace_back().setZero(static_cast<index>(t.value.size()));
    }
    return state;
}

template <real S>
void adamw_step(const std::vector<trainable<S>>& list, adamw_state<S>& state, const adamw_options& options) {
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

#ifdef LOWRANK_COMPILED
#define LOWRANK_ADAMW_OF(S)                                                        \
    template adamw_state<S> make_adamw_state<S>(const std::vector<trainable<S>>&); \
    template void adamw_step<S>(const std::vector<trainable<S>>&, adamw_state<S>&, const adamw_options&);
LOWRANK_ADAMW_OF(float)
LOWRANK_ADAMW_OF(double)
#undef LOWRANK_ADAMW_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_ADAMW_IPP

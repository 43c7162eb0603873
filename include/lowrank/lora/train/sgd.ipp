// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_SGD_IPP
#define LOWRANK_LORA_TRAIN_SGD_IPP

#include <lowrank/lora/train/sgd.hpp>

#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
sgd_state<S> make_sgd_state(const std::vector<trainable<S>>& list, const sgd_options& options) {
    sgd_state<S> state;
    if (options.momentum != 0) {
        for (const auto& t : list) {
            state.momentum.emplace_back().setZero(static_cast<index>(t.value.size()));
        }
    }
    return state;
}

template <real S>
void sgd_step(const std::vector<trainable<S>>& list, sgd_state<S>& state, const sgd_options& options) {
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

#ifdef LOWRANK_COMPILED
#define LOWRANK_SGD_OF(S)                                                                          \
    template sgd_state<S> make_sgd_state<S>(const std::vector<trainable<S>>&, const sgd_options&); \
    template void sgd_step<S>(const std::vector<trainable<S>>&, sgd_state<S>&, const sgd_options&);
LOWRANK_SGD_OF(float)
LOWRANK_SGD_OF(double)
#undef LOWRANK_SGD_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_SGD_IPP

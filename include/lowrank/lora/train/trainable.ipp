// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_TRAINABLE_IPP
#define LOWRANK_LORA_TRAIN_TRAINABLE_IPP

#include <lowrank/lora/train/trainable.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
trainable<S> make_trainable(matrix<S>& value, matrix<S>& gradient, index group) {
    detail::expects_shape("make_trainable", "gradient", gradient.rows(), gradient.cols(), value.rows(), value.cols());
    return {.value = {value.data(), static_cast<std::size_t>(value.size())},
            .gradient = {gradient.data(), static_cast<std::size_t>(gradient.size())},
            .group = group};
}

template <real S>
void append(std::vector<trainable<S>>& list, lora_adapter<S>& adapter, lora_gradient<S>& gradient, index group_A,
            index group_B) {
    list.push_back(make_trainable(adapter.lora_A, gradient.lora_A, group_A));
    list.push_back(make_trainable(adapter.lora_B, gradient.lora_B, group_B));
}

namespace detail {

template <real S>
void check_trainables(const char* function, const std::vector<trainable<S>>& list, std::size_t groups) {
    for (const auto& t : list) {
        if (t.value.size() != t.gradient.size()) {
            fail_contract_with(function, ": every gradient must be as long as its value, got ", t.gradient.size(),
                               " for ", t.value.size());
        }
        expects_in_range(function, "group", t.group, index{0}, static_cast<index>(groups) - 1);
    }
}

}  // namespace detail

template <real S>
double gradient_norm(const std::vector<trainable<S>>& list) {
    double sum = 0;
    for (const auto& t : list) {
        for (const S g : t.gradient) {
            sum += static_cast<double>(g) * static_cast<double>(g);
        }
    }
    return std::sqrt(sum);
}

template <real S>
double clip_gradients(const std::vector<trainable<S>>& list, double max_norm) {
    detail::expects(max_norm > 0, "clip_gradients: max_norm must be positive");
    const double norm = gradient_norm(list);
    const double factor = max_norm / (norm + 1e-6);
    if (is_finite(norm) && factor < 1) {
        for (const auto& t : list) {
            for (S& g : t.gradient) {
                g *= static_cast<S>(factor);
            }
        }
    }
    return norm;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_TRAINABLE_OF(S)                                                                             \
    template trainable<S> make_trainable<S>(matrix<S>&, matrix<S>&, index);                                 \
    template void append<S>(std::vector<trainable<S>>&, lora_adapter<S>&, lora_gradient<S>&, index, index); \
    template void detail::check_trainables<S>(const char*, const std::vector<trainable<S>>&, std::size_t);  \
    template double gradient_norm<S>(const std::vector<trainable<S>>&);                                     \
    template double clip_gradients<S>(const std::vector<trainable<S>>&, double);
LOWRANK_TRAINABLE_OF(float)
LOWRANK_TRAINABLE_OF(double)
#undef LOWRANK_TRAINABLE_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_TRAINABLE_IPP

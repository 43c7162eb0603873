// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_TRAINABLE_HPP
#define LOWRANK_LORA_TRAIN_TRAINABLE_HPP

/// \file
/// What an optimizer sees: a list of parameters with their gradients and groups, whatever they belong to.
///
///     std::vector<lowrank::trainable<float>> list;
///     lowrank::append(list, adapter, gradient, 0, 1);  // lora_A in group 0, lora_B in group 1
///     double norm = lowrank::clip_gradients(list, 1.0);
///
/// Every optimizer (adamw.hpp, sgd.hpp) steps over such a list; settings differ by group, not by tensor.

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One tensor under training: its values, their gradient, and which group's settings apply.
template <real S>
struct trainable {
    std::span<S> value = {};
    std::span<S> gradient = {};
    index group = 0;
};

/// A matrix and its gradient as a `trainable`. It borrows their memory: write into them, do not resize or replace them.
/// \pre They have one shape.
template <real S>
[[nodiscard]] trainable<S> make_trainable(matrix<S>& value, matrix<S>& gradient, index group = 0) {
    detail::expects_shape("make_trainable", "gradient", gradient.rows(), gradient.cols(), value.rows(), value.cols());
    return {.value = {value.data(), static_cast<std::size_t>(value.size())},
            .gradient = {gradient.data(), static_cast<std::size_t>(gradient.size())},
            .group = group};
}

/// Lists both factors of an adapter: lora_A in `group_A`, lora_B in `group_B`.
template <real S>
void append(std::vector<trainable<S>>& list, lora_adapter<S>& adapter, lora_gradient<S>& gradient, index group_A = 0,
            index group_B = 0) {
    list.push_back(make_trainable(adapter.lora_A, gradient.lora_A, group_A));
    list.push_back(make_trainable(adapter.lora_B, gradient.lora_B, group_B));
}

/// What may differ between groups of parameters.
struct parameter_group {
    double learning_rate = 1e-3;
    double weight_decay = 0.01;
};

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

/// sqrt of the sum of squares over all gradients, in double.
template <real S>
[[nodiscard]] double gradient_norm(const std::vector<trainable<S>>& list) {
    double sum = 0;
    for (const auto& t : list) {
        for (const S g : t.gradient) {
            sum += static_cast<double>(g) * static_cast<double>(g);
        }
    }
    return std::sqrt(sum);
}

/// Multiplies every gradient by min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_.
///
/// \return The norm before. If that is NaN or infinite the gradients are left alone: skip the step.
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

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_TRAINABLE_HPP

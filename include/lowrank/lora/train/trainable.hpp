// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_TRAINABLE_HPP
#define LOWRANK_LORA_TRAIN_TRAINABLE_HPP

/// \file
/// The interface of optimizers: a list of parameters with their gradients and groups.
///
///     auto gradient = lowrank::zero_gradient(adapter);
///     std::vector<lowrank::trainable<float>> list;
///     lowrank::append(list, adapter, gradient, 0, 1);  // lora_A in group 0, lora_B in group 1
///     double norm = lowrank::clip_gradients(list, 1.0);
///
/// Every optimizer (adamw.hpp, sgd.hpp) steps over such a list; settings differ by group, not by tensor.

#include <cstddef>
#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
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
[[nodiscard]] trainable<S> make_trainable(matrix<S>& value, matrix<S>& gradient, index group = 0);

/// Lists both factors of an adapter: lora_A in `group_A`, lora_B in `group_B`.
template <real S>
void append(std::vector<trainable<S>>& list, lora_adapter<S>& adapter, lora_gradient<S>& gradient, index group_A = 0,
            index group_B = 0);

/// What may differ between groups of parameters.
struct parameter_group {
    double learning_rate = 1e-3;
    double weight_decay = 0.01;
};

namespace detail {

template <real S>
void check_trainables(const char* function, const std::vector<trainable<S>>& list, std::size_t groups);

}  // namespace detail

/// sqrt of the sum of squares over all gradients, in double.
template <real S>
[[nodiscard]] double gradient_norm(const std::vector<trainable<S>>& list);

/// Multiplies every gradient by min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_.
///
/// \return The norm before. If it is NaN or infinite, the gradients are left unchanged: skip the step.
template <real S>
double clip_gradients(const std::vector<trainable<S>>& list, double max_norm);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/train/trainable.ipp>
#endif

#endif  // LOWRANK_LORA_TRAIN_TRAINABLE_HPP

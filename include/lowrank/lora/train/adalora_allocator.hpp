// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_HPP
#define LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_HPP

/// \file
/// AdaLoRA's rank allocator: all triplets of all layers share one budget that shrinks during training.
///
///     std::vector<lowrank::adalora_adapter<float>> adapters(3), gradients(3);
///     auto state = lowrank::make_adalora_allocator(
///         adapters, {.target_r = 4, .tinit = 200, .tfinal = 500, .deltaT = 10, .total_step = 3000});
///     // each step, after the optimizer's, with the gradients that step used:
///     auto done = lowrank::adalora_allocate<float>(state, 300, adapters, gradients);
///     if (done.masked) log(done.budget, done.threshold);
///     // at the end:
///     auto small = lowrank::keep_triplets(adapters[0], state.pattern[0]);
///
/// Zhang et al., arXiv 2303.10512, with PEFT's schedule and order of operations. The state is a plain value: store it
/// with the adapters and the step to resume bit for bit.

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/kinds/adalora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults, but for `total_step`, which has none.
struct adalora_schedule {
    index target_r = 8;  ///< the mean rank of a layer in the end
    std::int64_t tinit = 0;
    std::int64_t tfinal = 0;
    std::int64_t deltaT = 1;
    std::int64_t total_step = 0;
    double beta1 = 0.85;
    double beta2 = 0.85;
};

/// The budget of one step.
struct adalora_budget {
    index triplets = 0;
    bool mask = false;  ///< the budget is enforced at this step
};

/// The budget of a step: `initial` until tinit, `target` in the last tfinal steps, between them
/// floor((initial - target) (1 - (step - tinit) / (total_step - tfinal - tinit))^3 + target), enforced every deltaT.
LOWRANK_API [[nodiscard]] adalora_budget adalora_budget_at(std::int64_t step, index initial, index target,
                                                           const adalora_schedule& s);

/// Smoothed importance |p g| of every parameter of one adapter, and its smoothed deviation; both of the adapter's type.
template <real S>
struct adalora_importance {
    adalora_adapter<S> sensitivity = {};
    adalora_adapter<S> uncertainty = {};
};

/// The state of the allocator.
template <real S>
struct adalora_allocator {
    adalora_schedule schedule = {};
    index initial_budget = 0;
    index target_budget = 0;
    std::vector<adalora_importance<S>> importance = {};
    std::vector<std::vector<bool>> pattern = {};  ///< per adapter, which triplets the latest mask kept
};

/// The result of one step.
struct adalora_allocation {
    index budget = 0;
    bool masked = false;   ///< a new pattern was decided and applied
    double threshold = 0;  ///< the largest score that was masked; meaningless if none was
};

/// A fresh state: no importance yet, every triplet kept. \pre total_step is set, target_r at most the mean rank.
template <real S>
[[nodiscard]] adalora_allocator<S> make_adalora_allocator(const std::vector<adalora_adapter<S>>& adapters,
                                                          const adalora_schedule& schedule);

/// Updates the running importance with the parameters and gradients of one step:
///
///     i = |p g|     s <- beta1 s + (1 - beta1) i     u <- beta2 u + (1 - beta2) |i - s|
template <real S>
void adalora_observe(adalora_importance<S>& state, const adalora_adapter<S>& adapter,
                     const adalora_adapter<S>& gradient, double beta1, double beta2);

/// The score of every triplet of one adapter: that of E_i plus the means over row i of A and column i of B, the score
/// of an entry being sensitivity times uncertainty.
template <real S>
[[nodiscard]] vector<S> adalora_scores(const adalora_importance<S>& state);

/// Sets E to zero where the pattern is false.
template <real S>
void mask_triplets(adalora_adapter<S>& adapter, const std::vector<bool>& keep);

/// Keeps the `budget` triplets of the highest scores and masks the others, equal scores with the threshold's too.
template <real S>
[[nodiscard]] adalora_allocation adalora_mask_to_budget(adalora_allocator<S>& state, index budget,
                                                        std::type_identity_t<std::span<adalora_adapter<S>>> adapters);

/// One step of the allocator, after the optimizer's step: `adapters` hold the updated parameters, `gradients` this
/// step's gradients. Importance is observed while step < total_step - tfinal, the mask is decided when the schedule
/// says so and once more at total_step - tfinal; afterwards the last pattern is applied at every step.
///
/// \pre  One gradient per adapter, of its shapes; the adapters the state was made for.
/// \cost One pass over parameters, gradients and both averages; a selection among the triplets where masked.
template <real S>
adalora_allocation adalora_allocate(adalora_allocator<S>& state, std::int64_t step,
                                    std::type_identity_t<std::span<adalora_adapter<S>>> adapters,
                                    std::type_identity_t<std::span<const adalora_adapter<S>>> gradients);

/// The adapter without the triplets that the pattern drops. The scaling stays: it divides by the initial rank.
template <real S>
[[nodiscard]] adalora_adapter<S> keep_triplets(const adalora_adapter<S>& adapter, const std::vector<bool>& keep);

/// The mean over A and B of all adapters of ||A A^T - I||_F and ||B^T B - I||_F; where `gradients` is not null,
/// weight times its gradient is added there. PEFT's loss is data + orth_reg_weight (0.5 by default) times this.
/// \cost r^2 (in + out) an adapter.
template <real S>
double adalora_orthogonality(const std::vector<adalora_adapter<S>>& adapters, double weight = 0,
                             std::vector<adalora_adapter<S>>* gradients = nullptr);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/train/adalora_allocator.ipp>
#endif

#endif  // LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_HPP

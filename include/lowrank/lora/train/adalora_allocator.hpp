// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_HPP
#define LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_HPP

/// \file
/// AdaLoRA's rank allocator: all triplets of all layers compete for one budget that shrinks while training goes on.
///
///     auto state = lowrank::make_adalora_allocator(adapters, {.target_r = 4, .tinit = 200, .tfinal = 500,
///                                                             .deltaT = 10, .total_step = 3000});
///     // each step, after the optimizer's, with the gradients that step used:
///     auto done = lowrank::adalora_allocate(state, step, adapters, gradients);
///     if (done.masked) log(done.budget, done.threshold);
///     // at the end:
///     for (std::size_t k = 0; k < adapters.size(); ++k) small[k] = lowrank::keep_triplets(adapters[k],
///     state.pattern[k]);
///
/// Zhang et al., arXiv 2303.10512, with PEFT's schedule and order of operations. The state is a plain value: store it
/// with the adapters and the step to resume bit for bit.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <lowrank/core/check.hpp>
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

/// What the schedule says about one step.
struct adalora_budget {
    index triplets = 0;
    bool mask = false;  ///< the budget is enforced at this step
};

/// The budget of a step: `initial` until tinit, `target` in the last tfinal steps, between them
/// floor((initial - target) (1 - (step - tinit) / (total_step - tfinal - tinit))^3 + target), enforced every deltaT.
[[nodiscard]] inline adalora_budget adalora_budget_at(std::int64_t step, index initial, index target,
                                                      const adalora_schedule& s) {
    detail::expects(s.deltaT >= 1, "adalora_budget_at: deltaT must be at least 1");
    if (step <= s.tinit) {
        return {.triplets = initial, .mask = false};
    }
    if (step > s.total_step - s.tfinal) {
        return {.triplets = target, .mask = true};
    }
    const double left =
        1 - static_cast<double>(step - s.tinit) / static_cast<double>(s.total_step - s.tfinal - s.tinit);
    const double budget = static_cast<double>(initial - target) * (left * left * left) + static_cast<double>(target);
    return {.triplets = static_cast<index>(budget), .mask = step % s.deltaT == 0};
}

/// Smoothed importance |p g| of every parameter of one adapter, and its smoothed deviation; both of the adapter's type.
template <real S>
struct adalora_importance {
    adalora_adapter<S> sensitivity = {};
    adalora_adapter<S> uncertainty = {};
};

/// Everything the allocator knows.
template <real S>
struct adalora_allocator {
    adalora_schedule schedule = {};
    index initial_budget = 0;
    index target_budget = 0;
    std::vector<adalora_importance<S>> importance = {};
    std::vector<std::vector<bool>> pattern = {};  ///< per adapter, which triplets the latest mask kept
};

/// What one step did.
struct adalora_allocation {
    index budget = 0;
    bool masked = false;   ///< a new pattern was decided and applied
    double threshold = 0;  ///< the largest score that was switched off; of no meaning where nothing was
};

namespace detail {

template <real S, class F>
void for_adalora_tensors(adalora_importance<S>& state, const adalora_adapter<S>& p, const adalora_adapter<S>& g,
                         F&& f) {
    f(state.sensitivity.lora_A, state.uncertainty.lora_A, p.lora_A, g.lora_A);
    f(state.sensitivity.lora_B, state.uncertainty.lora_B, p.lora_B, g.lora_B);
    f(state.sensitivity.lora_E, state.uncertainty.lora_E, p.lora_E, g.lora_E);
}

}  // namespace detail

/// A fresh state: no importance yet, every triplet kept. \pre total_step is set, target_r at most the mean rank.
template <real S>
[[nodiscard]] adalora_allocator<S> make_adalora_allocator(const std::vector<adalora_adapter<S>>& adapters,
                                                          const adalora_schedule& schedule) {
    detail::expects(schedule.total_step > 0 && schedule.deltaT >= 1 && schedule.tinit >= 0 && schedule.tfinal >= 0 &&
                        schedule.tinit < schedule.total_step - schedule.tfinal,
                    "make_adalora_allocator: needs tinit < total_step - tfinal, and deltaT of at least 1");
    detail::expects(0 < schedule.beta1 && schedule.beta1 < 1 && 0 < schedule.beta2 && schedule.beta2 < 1,
                    "make_adalora_allocator: beta1 and beta2 must be in (0, 1)");
    adalora_allocator<S> state{.schedule = schedule};
    for (const auto& a : adapters) {
        const adalora_adapter<S> zero{.lora_A = matrix<S>::Zero(a.lora_A.rows(), a.lora_A.cols()),
                                      .lora_B = matrix<S>::Zero(a.lora_B.rows(), a.lora_B.cols()),
                                      .lora_E = vector<S>::Zero(a.lora_E.size())};
        state.importance.push_back({.sensitivity = zero, .uncertainty = zero});
        state.pattern.emplace_back(static_cast<std::size_t>(a.lora_E.size()), true);
        state.initial_budget += a.lora_E.size();
    }
    state.target_budget = schedule.target_r * static_cast<index>(adapters.size());
    detail::expects(state.target_budget <= state.initial_budget,
                    "make_adalora_allocator: target_r must not exceed the initial rank");
    return state;
}

/// Takes one step's parameters and gradients into the running importance:
///
///     i = |p g|     s <- beta1 s + (1 - beta1) i     u <- beta2 u + (1 - beta2) |i - s|
template <real S>
void adalora_observe(adalora_importance<S>& state, const adalora_adapter<S>& adapter,
                     const adalora_adapter<S>& gradient, double beta1, double beta2) {
    const auto b1 = static_cast<S>(beta1);
    const auto b2 = static_cast<S>(beta2);
    const auto r1 = static_cast<S>(1 - beta1);
    const auto r2 = static_cast<S>(1 - beta2);
    detail::for_adalora_tensors(state, adapter, gradient, [&](auto& s, auto& u, const auto& p, const auto& g) {
        detail::expects_shape("adalora_observe", "gradient", g.rows(), g.cols(), p.rows(), p.cols());
        detail::expects_shape("adalora_observe", "state", s.rows(), s.cols(), p.rows(), p.cols());
        s.array() = b1 * s.array() + r1 * (p.array() * g.array()).abs();
        u.array() = b2 * u.array() + r2 * ((p.array() * g.array()).abs() - s.array()).abs();
    });
}

/// The score of every triplet of one adapter: that of E_i plus the means over row i of A and column i of B, the score
/// of an entry being sensitivity times uncertainty.
template <real S>
[[nodiscard]] vector<S> adalora_scores(const adalora_importance<S>& state) {
    const auto product = [](const auto& s, const auto& u) { return s.cwiseProduct(u).eval(); };
    const matrix<S> a = product(state.sensitivity.lora_A, state.uncertainty.lora_A);
    const matrix<S> b = product(state.sensitivity.lora_B, state.uncertainty.lora_B);
    vector<S> score = product(state.sensitivity.lora_E, state.uncertainty.lora_E);
    if (a.cols() > 0 && b.rows() > 0) {
        score += a.rowwise().mean() + b.colwise().mean().transpose();
    }
    return score;
}

/// Sets E to zero where the pattern says no.
template <real S>
void mask_triplets(adalora_adapter<S>& adapter, const std::vector<bool>& keep) {
    detail::expects(static_cast<index>(keep.size()) == adapter.lora_E.size(),
                    "mask_triplets: the pattern must have one entry per triplet");
    for (index i = 0; i < adapter.lora_E.size(); ++i) {
        if (!keep[static_cast<std::size_t>(i)]) {
            adapter.lora_E(i) = S(0);
        }
    }
}

/// Keeps the `budget` triplets of the highest scores and masks the others, equal scores with the threshold's too.
template <real S>
[[nodiscard]] adalora_allocation adalora_mask_to_budget(adalora_allocator<S>& state, index budget,
                                                        std::type_identity_t<std::span<adalora_adapter<S>>> adapters) {
    detail::expects(adapters.size() == state.importance.size(),
                    "adalora_mask_to_budget: the state is of other adapters");
    std::vector<vector<S>> scores;
    std::vector<S> all;
    for (const auto& i : state.importance) {
        scores.push_back(adalora_scores(i));
        all.insert(all.end(), scores.back().data(), scores.back().data() + scores.back().size());
    }
    adalora_allocation done{.budget = budget, .masked = true};
    const index off = static_cast<index>(all.size()) - budget;
    const bool any = off >= 1;
    S threshold = S(0);
    if (any) {
        const auto kth = all.begin() + static_cast<std::ptrdiff_t>(off - 1);
        std::nth_element(all.begin(), kth, all.end());
        threshold = *kth;
        done.threshold = static_cast<double>(threshold);
    }
    for (std::size_t k = 0; k < adapters.size(); ++k) {
        for (index i = 0; i < scores[k].size(); ++i) {
            state.pattern[k][static_cast<std::size_t>(i)] = !any || scores[k](i) > threshold;
        }
        mask_triplets(adapters[k], state.pattern[k]);
    }
    return done;
}

/// One step of the allocator, after the optimizer's step: `adapters` hold the updated parameters, `gradients` this
/// step's gradients. Importance is observed while step < total_step - tfinal, the mask is decided when the schedule
/// says so and once more at total_step - tfinal; afterwards the last pattern is applied at every step.
///
/// \pre  One gradient per adapter, of its shapes; the adapters the state was made for.
/// \cost One pass over parameters, gradients and both averages; a selection among the triplets where masked.
template <real S>
adalora_allocation adalora_allocate(adalora_allocator<S>& state, std::int64_t step,
                                    std::type_identity_t<std::span<adalora_adapter<S>>> adapters,
                                    std::type_identity_t<std::span<const adalora_adapter<S>>> gradients) {
    detail::expects(adapters.size() == state.importance.size() && gradients.size() == adapters.size(),
                    "adalora_allocate: needs the adapters the state was made for, and one gradient each");
    const auto& s = state.schedule;
    const std::int64_t last = s.total_step - s.tfinal;
    const auto budget = adalora_budget_at(step, state.initial_budget, state.target_budget, s);
    if (step < last) {
        for (std::size_t k = 0; k < adapters.size(); ++k) {
            adalora_observe(state.importance[k], adapters[k], gradients[k], s.beta1, s.beta2);
        }
    }
    if (step == last || (step < last && budget.mask)) {
        return adalora_mask_to_budget(state, budget.triplets, adapters);
    }
    if (step > last) {
        for (std::size_t k = 0; k < adapters.size(); ++k) {
            mask_triplets(adapters[k], state.pattern[k]);
        }
    }
    return {.budget = budget.triplets};
}

/// The adapter without the triplets that the pattern drops. The scaling stays: it divides by the initial rank.
template <real S>
[[nodiscard]] adalora_adapter<S> keep_triplets(const adalora_adapter<S>& adapter, const std::vector<bool>& keep) {
    detail::expects(static_cast<index>(keep.size()) == adapter.lora_E.size(),
                    "keep_triplets: the pattern must have one entry per triplet");
    const auto rank = static_cast<index>(std::count(keep.begin(), keep.end(), true));
    adalora_adapter<S> out{.lora_A = matrix<S>(rank, adapter.lora_A.cols()),
                           .lora_B = matrix<S>(adapter.lora_B.rows(), rank),
                           .lora_E = vector<S>(rank),
                           .lora_alpha = adapter.lora_alpha,
                           .ranknum = adapter.ranknum};
    for (index i = 0, to = 0; i < adapter.lora_E.size(); ++i) {
        if (keep[static_cast<std::size_t>(i)]) {
            out.lora_A.row(to) = adapter.lora_A.row(i);
            out.lora_B.col(to) = adapter.lora_B.col(i);
            out.lora_E(to) = adapter.lora_E(i);
            ++to;
        }
    }
    return out;
}

/// The mean over A and B of all adapters of ||A A^T - I||_F and ||B^T B - I||_F; where `gradients` is not null,
/// weight times its gradient is added there. PEFT's loss is data + orth_reg_weight (0.5 by default) times this.
/// \cost r^2 (in + out) an adapter.
template <real S>
double adalora_orthogonality(const std::vector<adalora_adapter<S>>& adapters, double weight = 0,
                             std::vector<adalora_adapter<S>>* gradients = nullptr) {
    detail::expects(gradients == nullptr || gradients->size() == adapters.size(),
                    "adalora_orthogonality: needs no gradients, or one per adapter");
    const double count = 2 * static_cast<double>(adapters.size());
    double sum = 0;
    for (std::size_t k = 0; k < adapters.size(); ++k) {
        const matrix<S>& a = adapters[k].lora_A;
        const matrix<S>& b = adapters[k].lora_B;
        matrix<S> gap_a = a * a.transpose();
        matrix<S> gap_b = b.transpose() * b;
        gap_a.diagonal().array() -= S(1);
        gap_b.diagonal().array() -= S(1);
        const S norm_a = gap_a.norm();
        const S norm_b = gap_b.norm();
        sum += static_cast<double>(norm_a) + static_cast<double>(norm_b);
        if (gradients != nullptr) {
            const auto factor = [&](S norm) { return norm > S(0) ? static_cast<S>(2 * weight / count) / norm : S(0); };
            (*gradients)[k].lora_A += factor(norm_a) * (gap_a * a);
            (*gradients)[k].lora_B += factor(norm_b) * (b * gap_b);
        }
    }
    return adapters.empty() ? 0.0 : sum / count;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_HPP

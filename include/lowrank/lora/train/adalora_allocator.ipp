// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_IPP
#define LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_IPP

#include <lowrank/lora/train/adalora_allocator.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY adalora_budget adalora_budget_at(std::int64_t step, index initial, index target,
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

template <real S>
adalora_allocator<S> make_adalora_allocator(const std::vector<adalora_adapter<S>>& adapters,
                                            const adalora_schedule& schedule) {
    detail::expects(schedule.total_step > 0 && schedule.deltaT >= 1 && schedule.tinit >= 0 && schedule.tfinal >= 0 &&
                        schedule.tinit < schedule.total_step - schedule.tfinal,
                    "make_adalora_allocator: needs tinit < total_step - tfinal, and deltaT of at least 1");
    detail::expects(0 < schedule.beta1 && schedule.beta1 < 1 && 0 < schedule.beta2 && schedule.beta2 < 1,
                    "make_adalora_allocator: beta1 and beta2 must be in (0, 1)");
    adalora_allocator<S> state{.schedule = schedule};
    for (const auto& a : adapters) {
        adalora_adapter<S> zero;
        zero.lora_A.setZero(a.lora_A.rows(), a.lora_A.cols());
        zero.lora_B.setZero(a.lora_B.rows(), a.lora_B.cols());
        zero.lora_E.setZero(a.lora_E.size());
        state.importance.push_back({.sensitivity = zero, .uncertainty = zero});
        state.pattern.emplace_back(static_cast<std::size_t>(a.lora_E.size()), true);
        state.initial_budget += a.lora_E.size();
    }
    state.target_budget = schedule.target_r * static_cast<index>(adapters.size());
    detail::expects(state.target_budget <= state.initial_budget,
                    "make_adalora_allocator: target_r must not exceed the initial rank");
    return state;
}

namespace detail {

/// One tensor of `adalora_observe`.
template <real S, class D>
void observe_importance(D& s, D& u, const D& p, const D& g, S b1, S b2, S r1, S r2) {
    expects_shape("adalora_observe", "gradient", g.rows(), g.cols(), p.rows(), p.cols());
    expects_shape("adalora_observe", "state", s.rows(), s.cols(), p.rows(), p.cols());
    for (index at = 0; at < p.size(); ++at) {
        const S i = std::abs(p.data()[at] * g.data()[at]);
        S& sensitivity = s.data()[at];
        S& uncertainty = u.data()[at];
        sensitivity = b1 * sensitivity + r1 * i;
        uncertainty = b2 * uncertainty + r2 * std::abs(i - sensitivity);
    }
}

}  // namespace detail

template <real S>
void adalora_observe(adalora_importance<S>& state, const adalora_adapter<S>& adapter,
                     const adalora_adapter<S>& gradient, double beta1, double beta2) {
    const auto b1 = static_cast<S>(beta1);
    const auto b2 = static_cast<S>(beta2);
    const auto r1 = static_cast<S>(1 - beta1);
    const auto r2 = static_cast<S>(1 - beta2);
    auto& [s, u] = state;
    detail::observe_importance(s.lora_A, u.lora_A, adapter.lora_A, gradient.lora_A, b1, b2, r1, r2);
    detail::observe_importance(s.lora_B, u.lora_B, adapter.lora_B, gradient.lora_B, b1, b2, r1, r2);
    detail::observe_importance(s.lora_E, u.lora_E, adapter.lora_E, gradient.lora_E, b1, b2, r1, r2);
}

template <real S>
vector<S> adalora_scores(const adalora_importance<S>& state) {
    const auto& [s, u] = state;
    const index in = s.lora_A.cols();
    const index out = s.lora_B.rows();
    vector<S> score(s.lora_E.size());
    for (index i = 0; i < score.size(); ++i) {
        score(i) = s.lora_E(i) * u.lora_E(i);
        if (in > 0 && out > 0) {
            S of_a(0);
            S of_b(0);
            for (index j = 0; j < in; ++j) {
                of_a += s.lora_A(i, j) * u.lora_A(i, j);
            }
            for (index j = 0; j < out; ++j) {
                of_b += s.lora_B(j, i) * u.lora_B(j, i);
            }
            score(i) += of_a / static_cast<S>(in) + of_b / static_cast<S>(out);
        }
    }
    return score;
}

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

template <real S>
adalora_allocation adalora_mask_to_budget(adalora_allocator<S>& state, index budget,
                                          std::type_identity_t<std::span<adalora_adapter<S>>> adapters) {
    detail::expects(adapters.size() == state.importance.size(),
                    "adalora_mask_to_budget: the state is of other adapters");
    std::vector<vector<S>> scores;
    std::vector<S> all;
    for (const auto& i : state.importance) {
        scores.push_back(adalora_scores(i));
        all.insert(all.end(), scores.back().data(), scores.back().data() + scores.back().size());
    }
    detail::expects(all_finite(all.data(), static_cast<index>(all.size())),
                    "adalora_mask_to_budget: every importance must be finite; a gradient was NaN");
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

template <real S>
adalora_adapter<S> keep_triplets(const adalora_adapter<S>& adapter, const std::vector<bool>& keep) {
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
            for (index j = 0; j < out.lora_A.cols(); ++j) {
                out.lora_A(to, j) = adapter.lora_A(i, j);
            }
            std::copy_n(adapter.lora_B.data() + i * out.lora_B.rows(), out.lora_B.rows(),
                        out.lora_B.data() + to * out.lora_B.rows());
            out.lora_E(to) = adapter.lora_E(i);
            ++to;
        }
    }
    return out;
}

template <real S>
double adalora_orthogonality(const std::vector<adalora_adapter<S>>& adapters, double weight,
                             std::vector<adalora_adapter<S>>* gradients) {
    detail::expects(gradients == nullptr || gradients->size() == adapters.size(),
                    "adalora_orthogonality: needs no gradients, or one per adapter");
    const double count = 2 * static_cast<double>(adapters.size());
    double sum = 0;
    for (std::size_t k = 0; k < adapters.size(); ++k) {
        const matrix<S>& a = adapters[k].lora_A;
        const matrix<S>& b = adapters[k].lora_B;
        matrix<S> gap_a = product(a, transposed(a));
        matrix<S> gap_b = product(transposed(b), b);
        for (index i = 0; i < gap_a.rows(); ++i) {
            gap_a(i, i) -= S(1);
            gap_b(i, i) -= S(1);
        }
        const auto norm_a = static_cast<S>(norm_of(gap_a));
        const auto norm_b = static_cast<S>(norm_of(gap_b));
        sum += static_cast<double>(norm_a) + static_cast<double>(norm_b);
        if (gradients != nullptr) {
            const auto factor = [&](S norm) { return norm > S(0) ? static_cast<S>(2 * weight / count) / norm : S(0); };
            add_product(factor(norm_a), gap_a, a, (*gradients)[k].lora_A);
            add_product(factor(norm_b), b, gap_b, (*gradients)[k].lora_B);
        }
    }
    return adapters.empty() ? 0.0 : sum / count;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ADALORA_ALLOCATOR_OF(S)                                                                            \
    template adalora_allocator<S> make_adalora_allocator<S>(const std::vector<adalora_adapter<S>>&,                \
                                                            const adalora_schedule&);                              \
    template void adalora_observe<S>(adalora_importance<S>&, const adalora_adapter<S>&, const adalora_adapter<S>&, \
                                     double, double);                                                              \
    template vector<S> adalora_scores<S>(const adalora_importance<S>&);                                            \
    template void mask_triplets<S>(adalora_adapter<S>&, const std::vector<bool>&);                                 \
    template adalora_allocation adalora_mask_to_budget<S>(adalora_allocator<S>&, index,                            \
                                                          std::span<adalora_adapter<S>>);                          \
    template adalora_allocation adalora_allocate<S>(                                                               \
        adalora_allocator<S>&, std::int64_t, std::span<adalora_adapter<S>>, std::span<const adalora_adapter<S>>);  \
    template adalora_adapter<S> keep_triplets<S>(const adalora_adapter<S>&, const std::vector<bool>&);             \
    template double adalora_orthogonality<S>(const std::vector<adalora_adapter<S>>&, double,                       \
                                             std::vector<adalora_adapter<S>>*);
LOWRANK_ADALORA_ALLOCATOR_OF(float)
LOWRANK_ADALORA_ALLOCATOR_OF(double)
#undef LOWRANK_ADALORA_ALLOCATOR_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_ADALORA_ALLOCATOR_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_COMBINE_COMBINE_IPP
#define LOWRANK_LORA_COMBINE_COMBINE_IPP

#include <lowrank/lora/combine/combine.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/prune/magnitude.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY keep_mask random_mask(index rows, index cols, double density, const philox& rng) {
    matrix<double> u(rows, cols);
    fill_uniform(u, 0.0, 1.0, rng);
    keep_mask mask(rows, cols);
    std::transform(u.data(), u.data() + u.size(), mask.data(), [density](double x) { return x < density; });
    return mask;
}

template <real S>
matrix<S> prune_to_density(matrix<S> x, double density) {
    detail::expects(density >= 0, "prune_to_density: density must not be negative");
    if (density < 1) {
        keep_largest<S>(std::span<S>(x.data(), static_cast<std::size_t>(x.size())),
                        static_cast<index>(density * static_cast<double>(x.size())));
    }
    return x;
}

template <real S>
matrix<S> drop_and_rescale(const matrix<S>& x, const keep_mask& mask, double density) {
    detail::expects_shape("drop_and_rescale", "mask", mask.rows(), mask.cols(), x.rows(), x.cols());
    detail::expects(density > 0, "drop_and_rescale: density must be positive");
    const auto by = static_cast<S>(density);
    matrix<S> kept(x.rows(), x.cols());
    for (index i = 0; i < x.size(); ++i) {
        kept.data()[i] = mask.data()[i] ? x.data()[i] / by : S(0);
    }
    return kept;
}

namespace detail {

/// -1, 0 or 1.
template <real S>
[[nodiscard]] S sign_of(S x) noexcept {
    return x > S(0) ? S(1) : x < S(0) ? S(-1) : S(0);
}

template <real S>
void check_tasks(const char* function, std::span<const matrix<S>> tasks, std::span<const double> weights) {
    if (tasks.empty() || tasks.size() != weights.size()) [[unlikely]] {
        fail_contract_with(function, ": needs at least one task, and one weight for each");
    }
    for (const auto& t : tasks) {
        expects_shape(function, "every task", t.rows(), t.cols(), tasks[0].rows(), tasks[0].cols());
    }
}

/// sum w_i t_i
template <real S>
matrix<S> weighted_total(std::span<const matrix<S>> tasks, std::span<const double> weights) {
    matrix<S> sum;
    sum.setZero(tasks[0].rows(), tasks[0].cols());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        axpy(static_cast<S>(weights[i]), tasks[i].data(), sum.data(), sum.size());
    }
    return sum;
}

/// +1 or -1.
template <real S>
matrix<S> elected_sign(std::span<const matrix<S>> tasks, std::span<const double> weights, sign_election how) {
    matrix<S> votes;
    votes.setZero(tasks[0].rows(), tasks[0].cols());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        const auto w = how == sign_election::weighted ? static_cast<S>(weights[i]) : S(1);
        for (index at = 0; at < votes.size(); ++at) {
            const S x = tasks[i].data()[at];
            votes.data()[at] += w * (how == sign_election::frequency ? sign_of(x) : x);
        }
    }
    std::transform(votes.data(), votes.data() + votes.size(), votes.data(),
                   [](S v) { return v >= S(0) ? S(1) : S(-1); });
    return votes;
}

}  // namespace detail

template <real S>
std::vector<keep_mask> majority_sign_masks(std::span<const matrix<S>> tasks, std::span<const double> weights,
                                           sign_election how) {
    detail::check_tasks("majority_sign_masks", tasks, weights);
    const matrix<S> sign = detail::elected_sign(tasks, weights, how);
    std::vector<keep_mask> masks;
    for (const auto& t : tasks) {
        auto& mask = masks.emplace_back(t.rows(), t.cols());
        for (index i = 0; i < t.size(); ++i) {
            mask.data()[i] = detail::sign_of(t.data()[i]) == sign.data()[i];
        }
    }
    return masks;
}

template <real S>
matrix<S> elect_and_merge(std::span<const matrix<S>> tasks, std::span<const double> weights, sign_election how,
                          ties_divisor divisor) {
    const auto masks = majority_sign_masks(tasks, weights, how);
    matrix<S> sum;
    matrix<S> by;
    sum.setZero(tasks[0].rows(), tasks[0].cols());
    by.setZero(tasks[0].rows(), tasks[0].cols());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        const auto w = static_cast<S>(weights[i]);
        for (index at = 0; at < sum.size(); ++at) {
            if (masks[i].data()[at]) {
                sum.data()[at] += w * tasks[i].data()[at];
                by.data()[at] += divisor == ties_divisor::weights ? w : S(1);
            }
        }
    }
    for (index at = 0; at < sum.size(); ++at) {
        S& x = sum.data()[at];
        const S y = by.data()[at];
        switch (divisor) {
            case ties_divisor::count: x /= std::max(y, S(1)); break;
            case ties_divisor::weights: x = y != S(0) ? x / y : S(0); break;
            case ties_divisor::one: break;
        }
    }
    return sum;
}

template <real S>
matrix<S> combine_entries(std::vector<matrix<S>> tasks, std::span<const double> weights, const combine_options& options,
                          const std::function<keep_mask(std::size_t, index, index)>& mask_of) {
    detail::check_tasks<S>("combine_entries", tasks, weights);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        auto& t = tasks[i];
        switch (options.rule) {
            case combine_rule::linear: break;
            case combine_rule::ties:
            case combine_rule::magnitude_prune: t = prune_to_density(std::move(t), options.density); break;
            case combine_rule::dare_linear:
            case combine_rule::dare_ties:
                detail::expects(options.density > 0, "combine_entries: the density of DARE must be positive");
                if (options.density < 1) {
                    t = drop_and_rescale<S>(t, mask_of(i, t.rows(), t.cols()), options.density);
                }
                break;
        }
    }
    if (options.rule == combine_rule::ties || options.rule == combine_rule::dare_ties) {
        return elect_and_merge<S>(tasks, weights, options.election, options.divisor);
    }
    return detail::weighted_total<S>(tasks, weights);
}

template <real S>
matrix<S> combine_entries(std::vector<matrix<S>> tasks, std::span<const double> weights,
                          const combine_options& options) {
    return combine_entries<S>(std::move(tasks), weights, options, [&](std::size_t i, index rows, index cols) {
        return random_mask(rows, cols, options.density, philox(options.seed, options.stream + i));
    });
}

template <real S>
result<matrix<S>> combine(std::span<const low_rank<S>> tasks, std::span<const double> weights,
                          const combine_options& options) {
    std::vector<matrix<S>> dense;
    for (const auto& t : tasks) {
        if (!all_finite(t.left) || !all_finite(t.right)) {
            return status{errc::non_finite, "combine: a change holds NaN or infinity; repair or exclude it"};
        }
        dense.push_back(t.dense());
    }
    return combine_entries<S>(std::move(dense), weights, options);
}

template <real S>
lora_conversion<S> combine_sum(std::span<const low_rank<S>> tasks, std::span<const double> weights,
                               const rank_choice& choice, sigma_split split) {
    const std::vector<S> w(weights.begin(), weights.end());
    return to_lora(weighted_sum<S>(tasks, std::span<const S>(w)), choice, split);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_COMBINE_OF(S)                                                                                       \
    template matrix<S> prune_to_density<S>(matrix<S>, double);                                                      \
    template matrix<S> drop_and_rescale<S>(const matrix<S>&, const keep_mask&, double);                             \
    template std::vector<keep_mask> majority_sign_masks<S>(std::span<const matrix<S>>, std::span<const double>,     \
                                                           sign_election);                                          \
    template matrix<S> elect_and_merge<S>(std::span<const matrix<S>>, std::span<const double>, sign_election,       \
                                          ties_divisor);                                                            \
    template matrix<S> combine_entries<S>(std::vector<matrix<S>>, std::span<const double>, const combine_options&,  \
                                          const std::function<keep_mask(std::size_t, index, index)>&);              \
    template matrix<S> combine_entries<S>(std::vector<matrix<S>>, std::span<const double>, const combine_options&); \
    template result<matrix<S>> combine<S>(std::span<const low_rank<S>>, std::span<const double>,                    \
                                          const combine_options&);                                                  \
    template lora_conversion<S> combine_sum<S>(std::span<const low_rank<S>>, std::span<const double>,               \
                                               const rank_choice&, sigma_split);
LOWRANK_COMBINE_OF(float)
LOWRANK_COMBINE_OF(double)
#undef LOWRANK_COMBINE_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_COMBINE_COMBINE_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_COMBINE_COMBINE_HPP
#define LOWRANK_LORA_COMBINE_COMBINE_HPP

/// \file
/// Several changes of one weight as one, exactly: a weighted sum, TIES, DARE or pruning of the true changes.
///
///     const lowrank::low_rank<float> tasks[] = {poet.delta(), coder.delta()};
///     const double weights[] = {0.7, 0.3};
///     auto both = lowrank::combine<float>(tasks, weights, {.rule = lowrank::combine_rule::ties, .density = 0.2});
///     auto lora = lowrank::to_lora(both.value(), lowrank::fixed_rank(16));     // and at a rank again (convert.hpp)
///     auto sum = lowrank::combine_sum<float>(tasks, weights, lowrank::fixed_rank(16));   // never dense
///
/// The rules work on matrices of one shape, entry by entry. PEFT applies most of them to A and to B instead, which is a
/// different thing; weighted_adapter.hpp has that, number for number.
///
/// Yadav et al., TIES-Merging, arXiv 2306.01708. Yu et al., DARE, arXiv 2311.03099. PEFT, utils/merge_utils.py;
/// mergekit.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/prune/magnitude.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What happens to the entries of the tasks t_i with weights w_i.
enum class combine_rule {
    linear,           ///< sum w_i t_i.
    ties,             ///< Small entries pruned, a sign elected, the entries of that sign averaged.
    dare_linear,      ///< Entries dropped at random, the others divided by the density, then the sum.
    dare_ties,        ///< Dropped and divided in the same way, then a sign elected and averaged.
    magnitude_prune,  ///< Small entries pruned, then the sum.
};

/// Whose vote counts for the sign of an entry. Zero votes count as plus; weights do not count unless `weighted`.
enum class sign_election {
    total,      ///< The sign of sum t_i.
    frequency,  ///< The sign of sum sign(t_i).
    weighted,   ///< The sign of sum w_i t_i (mergekit).
};

/// What the entries that agree with the elected sign are divided by.
enum class ties_divisor {
    count,    ///< How many agree, at least 1 (PEFT): weights of 1/2 halve the result.
    weights,  ///< The sum of their weights (mergekit, normalize: true).
    one,      ///< Nothing: their weighted sum.
};

struct combine_options {
    combine_rule rule = combine_rule::linear;
    double density = 1;  ///< Share of entries that pruning or dropping keeps; 1 and more keeps all.
    sign_election election = sign_election::total;
    ties_divisor divisor = ties_divisor::count;
    std::uint64_t seed = 0;  ///< Of DARE.
    std::uint64_t stream = 0;
};

/// One flag per entry.
using keep_mask = Eigen::Array<bool, Eigen::Dynamic, Eigen::Dynamic>;

/// Each entry kept with probability `density`, independently; equal on every machine. \pre 0 <= density
[[nodiscard]] inline keep_mask random_mask(index rows, index cols, double density, const philox& rng) {
    matrix<double> u(rows, cols);
    fill_uniform(u, 0.0, 1.0, rng);
    return u.array() < density;
}

/// The int(density * size) entries of largest magnitude, the others zero; the matrix itself for density >= 1.
/// \pre density >= 0
template <real S>
[[nodiscard]] matrix<S> prune_to_density(matrix<S> x, double density) {
    detail::expects(density >= 0, "prune_to_density: density must not be negative");
    if (density < 1) {
        keep_largest<S>(std::span<S>(x.data(), static_cast<std::size_t>(x.size())),
                        static_cast<index>(density * static_cast<double>(x.size())));
    }
    return x;
}

/// DARE: entries outside the mask become zero, the others are divided by the density. \pre density > 0
template <real S>
[[nodiscard]] matrix<S> drop_and_rescale(const matrix<S>& x, const keep_mask& mask, double density) {
    detail::expects_shape("drop_and_rescale", "mask", mask.rows(), mask.cols(), x.rows(), x.cols());
    detail::expects(density > 0, "drop_and_rescale: density must be positive");
    return mask.select(x.array() / static_cast<S>(density), S(0)).matrix();
}

namespace detail {

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
[[nodiscard]] matrix<S> weighted_total(std::span<const matrix<S>> tasks, std::span<const double> weights) {
    matrix<S> sum = matrix<S>::Zero(tasks[0].rows(), tasks[0].cols());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        sum += static_cast<S>(weights[i]) * tasks[i];
    }
    return sum;
}

/// +1 or -1.
template <real S>
[[nodiscard]] matrix<S> elected_sign(std::span<const matrix<S>> tasks, std::span<const double> weights,
                                     sign_election how) {
    matrix<S> votes = matrix<S>::Zero(tasks[0].rows(), tasks[0].cols());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        switch (how) {
            case sign_election::total: votes += tasks[i]; break;
            case sign_election::frequency: votes += tasks[i].cwiseSign(); break;
            case sign_election::weighted: votes += static_cast<S>(weights[i]) * tasks[i]; break;
        }
    }
    return votes.unaryExpr([](S v) { return v >= S(0) ? S(1) : S(-1); });
}

}  // namespace detail

/// For each task, the entries that have the elected sign; zero entries have none. \pre At least one task, of one shape.
template <real S>
[[nodiscard]] std::vector<keep_mask> majority_sign_masks(std::span<const matrix<S>> tasks,
                                                         std::span<const double> weights,
                                                         sign_election how = sign_election::total) {
    detail::check_tasks("majority_sign_masks", tasks, weights);
    const matrix<S> sign = detail::elected_sign(tasks, weights, how);
    std::vector<keep_mask> masks;
    for (const auto& t : tasks) {
        masks.emplace_back(t.cwiseSign().array() == sign.array());
    }
    return masks;
}

/// The weighted mean of the entries with the elected sign, as the divisor says. \pre As `majority_sign_masks`.
template <real S>
[[nodiscard]] matrix<S> elect_and_merge(std::span<const matrix<S>> tasks, std::span<const double> weights,
                                        sign_election how = sign_election::total,
                                        ties_divisor divisor = ties_divisor::count) {
    const auto masks = majority_sign_masks(tasks, weights, how);
    matrix<S> sum = matrix<S>::Zero(tasks[0].rows(), tasks[0].cols());
    matrix<S> by = matrix<S>::Zero(tasks[0].rows(), tasks[0].cols());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        const auto w = static_cast<S>(weights[i]);
        sum.array() += masks[i].select(w * tasks[i].array(), S(0));
        by.array() += masks[i].template cast<S>() * (divisor == ties_divisor::weights ? w : S(1));
    }
    switch (divisor) {
        case ties_divisor::count: return sum.cwiseQuotient(by.cwiseMax(S(1)));
        case ties_divisor::weights: return sum.binaryExpr(by, [](S x, S y) { return y != S(0) ? x / y : S(0); });
        case ties_divisor::one: break;
    }
    return sum;
}

/// The rule applied to tasks of one shape, with the masks of DARE from `mask_of(task, rows, cols)`.
///
/// \pre At least one task, a weight for each; density >= 0, for DARE > 0. Masks are asked for only for density < 1.
template <real S, class Masks>
[[nodiscard]] matrix<S> combine_entries(std::vector<matrix<S>> tasks, std::span<const double> weights,
                                        const combine_options& options, Masks&& mask_of) {
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

/// The same with masks from the seed, task i drawing from stream `stream + i`.
template <real S>
[[nodiscard]] matrix<S> combine_entries(std::vector<matrix<S>> tasks, std::span<const double> weights,
                                        const combine_options& options) {
    return combine_entries<S>(std::move(tasks), weights, options, [&](std::size_t i, index rows, index cols) {
        return random_mask(rows, cols, options.density, philox(options.seed, options.stream + i));
    });
}

/// The rule applied to the true changes: dense, out x in.
///
/// \pre    At least one task, all of one shape, a weight for each.
/// \return `non_finite` if a factor holds NaN or infinity.
/// \cost   One dense matrix per task. For `linear`, `combine_sum` needs none.
template <real S>
[[nodiscard]] result<matrix<S>> combine(std::span<const low_rank<S>> tasks, std::span<const double> weights,
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

/// sum w_i t_i at the rank of the rule, through QR and a small core.
///
/// \pre, \return As `combine`; the error is exact, and 0 to rounding for a rank of sum k_i.
/// \cost   6 k^2 (out + in) flops for k = sum k_i.
template <real S>
[[nodiscard]] lora_conversion<S> combine_sum(std::span<const low_rank<S>> tasks, std::span<const double> weights,
                                             const rank_choice& choice, sigma_split split = sigma_split::square) {
    const std::vector<S> w(weights.begin(), weights.end());
    return to_lora(weighted_sum<S>(tasks, std::span<const S>(w)), choice, split);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_COMBINE_COMBINE_HPP

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

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/lora/convert/convert.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How the entries of the tasks t_i with weights w_i are combined.
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
LOWRANK_API [[nodiscard]] keep_mask random_mask(index rows, index cols, double density, const philox& rng);

/// The int(density * size) entries of largest magnitude, the others zero; the matrix itself for density >= 1.
/// \pre density >= 0
template <real S>
[[nodiscard]] matrix<S> prune_to_density(matrix<S> x, double density);

/// DARE: entries outside the mask become zero, the others are divided by the density. \pre density > 0
template <real S>
[[nodiscard]] matrix<S> drop_and_rescale(const matrix<S>& x, const keep_mask& mask, double density);

/// For each task, the entries that have the elected sign; zero entries have none. \pre At least one task, of one shape.
template <real S>
[[nodiscard]] std::vector<keep_mask> majority_sign_masks(std::span<const matrix<S>> tasks,
                                                         std::span<const double> weights,
                                                         sign_election how = sign_election::total);

/// The weighted mean of the entries with the elected sign, as the divisor says. \pre As `majority_sign_masks`.
template <real S>
[[nodiscard]] matrix<S> elect_and_merge(std::span<const matrix<S>> tasks, std::span<const double> weights,
                                        sign_election how = sign_election::total,
                                        ties_divisor divisor = ties_divisor::count);

/// The rule applied to tasks of one shape, with the masks of DARE from `mask_of(task, rows, cols)`.
///
/// \pre At least one task, a weight for each; density >= 0, for DARE > 0. Masks are asked for only for density < 1.
template <real S>
[[nodiscard]] matrix<S> combine_entries(std::vector<matrix<S>> tasks, std::span<const double> weights,
                                        const combine_options& options,
                                        const std::function<keep_mask(std::size_t, index, index)>& mask_of);

/// The same with masks from the seed, task i drawing from stream `stream + i`.
template <real S>
[[nodiscard]] matrix<S> combine_entries(std::vector<matrix<S>> tasks, std::span<const double> weights,
                                        const combine_options& options);

/// The rule applied to the true changes: dense, out x in.
///
/// \pre    At least one task, all of one shape, a weight for each.
/// \return `non_finite` if a factor holds NaN or infinity.
/// \cost   One dense matrix per task. For `linear`, `combine_sum` needs none.
template <real S>
[[nodiscard]] result<matrix<S>> combine(std::span<const low_rank<S>> tasks, std::span<const double> weights,
                                        const combine_options& options);

/// sum w_i t_i at the rank of the rule, through QR and a small core.
///
/// \pre, \return As `combine`; the error is exact, and 0 to rounding for a rank of sum k_i.
/// \cost   6 k^2 (out + in) flops for k = sum k_i.
template <real S>
[[nodiscard]] lora_conversion<S> combine_sum(std::span<const low_rank<S>> tasks, std::span<const double> weights,
                                             const rank_choice& choice, sigma_split split = sigma_split::square);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/combine/combine.ipp>
#endif

#endif  // LOWRANK_LORA_COMBINE_COMBINE_HPP

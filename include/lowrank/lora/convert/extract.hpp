// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_EXTRACT_HPP
#define LOWRANK_LORA_CONVERT_EXTRACT_HPP

/// \file
/// The LoRA adapter that leads from one weight to another: W_tuned ~ W_base + B A.
///
///     auto lora = lowrank::extract_lora(base, tuned, {.rank = {.rule = lowrank::rank_rule::ratio, .value = 0.1}});
///     if (!lora) return log(lora.why.message);
///     if (lora.changed) use(lora.adapter);
///     auto as_kohya = lowrank::extract_lora(base, tuned, lowrank::kohya_extraction(16));
///
/// The five selectors of the field (full, fixed, threshold, ratio, quantile) are rank choices; so is every other rule.
///
/// LyCORIS (utils: extract_linear), kohya sd-scripts (extract_lora_from_models.py), mergekit (extract_lora.py).

#include <concepts>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How to extract. The defaults give the best adapter of rank 16 with factors of equal norm.
struct extraction_options {
    rank_choice rank = {.rule = rank_rule::fixed, .value = 16};
    sigma_split split = sigma_split::square;
    double min_difference = 0;    ///< Weights with max |W_tuned - W_base| below this count as unchanged.
    double clamp_quantile = 1;    ///< Below 1: entries of B and A beyond this quantile of them are cut (kohya: 0.99).
    bool fan_in_fan_out = false;  ///< Both weights are stored in x out; the adapter is for out x in all the same.
    bool fast = false;            ///< By randomized SVD (`to_lora_fast`): nearly the best, much sooner.
    randomized_svd_options sketch = {.oversample = 16, .power_iterations = 3};
};

/// LyCORIS: B = U diag(s), A = V^T, at least rank 1. "full" keeps everything; the rules are `fixed`, `threshold`,
/// `ratio` and `quantile`.
LOWRANK_API [[nodiscard]] extraction_options lycoris_extraction(rank_rule rule, double value);

/// Every singular value ("full"): the difference itself, to rounding.
LOWRANK_API [[nodiscard]] extraction_options full_extraction();

/// kohya: fixed rank, B = U diag(s), A = V^T, both cut at the 0.99 quantile. Its min_diff of 0.01 asks whether the text
/// encoder as a whole was trained, and skips no weight by itself.
LOWRANK_API [[nodiscard]] extraction_options kohya_extraction(index rank);

/// mergekit: at most `max_rank` singular values, those above `sv_epsilon`, their roots on both sides.
LOWRANK_API [[nodiscard]] extraction_options mergekit_extraction(index max_rank = 128, double sv_epsilon = 0,
                                                                 bool distribute_scale = true);

/// An extracted adapter (scaling 1, lora_alpha = r) and its error.
template <real S>
struct lora_extraction : fallible {
    lora_adapter<S> adapter = {};  ///< of rank 0 if nothing changed
    bool changed = true;           ///< max |W_tuned - W_base| reached `min_difference` and is not 0.
    double largest_change = 0;     ///< max |W_tuned - W_base|.
    double error = 0;              ///< ||W_tuned - W_base - B A||_F; of the adapter before clamping.
    double relative = 0;           ///< The same over ||W_tuned - W_base||_F.
    error_source how = error_source::exact;
};

namespace detail {

/// Cuts all entries of both factors at the quantile q of all of them, in both directions.
template <real S>
void clamp_factors(lora_adapter<S>& a, double q);

}  // namespace detail

/// The adapter of a difference that is already formed, out x in.
template <real S>
[[nodiscard]] lora_extraction<S> extract_lora(const matrix<S>& difference, const extraction_options& options = {});

/// The adapter that leads from W_base to W_tuned, weights of any stored type, out x in (in x out with
/// `fan_in_fan_out`).
///
/// The difference is taken in double for double weights and in float for all others, where it is exact for 16-bit
/// weights of similar size.
/// \pre    Both have one shape and one scalar to compute in.
/// \return `non_finite` if a weight holds NaN or infinity. The error is exact unless `fast`.
/// \cost   That of `svd`, and one dense difference.
template <detail::dense_weight W0, detail::dense_weight W1>
requires std::same_as<weight_scalar<W0>, weight_scalar<W1>>
[[nodiscard]] lora_extraction<weight_scalar<W0>> extract_lora(const W0& base, const W1& tuned,
                                                              const extraction_options& options = {}) {
    using S = weight_scalar<W0>;
    detail::expects_shape("extract_lora", "tuned", tuned.rows(), tuned.cols(), base.rows(), base.cols());
    const bool turn = options.fan_in_fan_out;
    matrix<S> difference(turn ? base.cols() : base.rows(), turn ? base.rows() : base.cols());
    for (index j = 0; j < base.cols(); ++j) {
        for (index i = 0; i < base.rows(); ++i) {
            difference(turn ? j : i, turn ? i : j) = static_cast<S>(tuned(i, j)) - static_cast<S>(base(i, j));
        }
    }
    return extract_lora(difference, options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/convert/extract.ipp>
#endif

#endif  // LOWRANK_LORA_CONVERT_EXTRACT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_CONVERT_HPP
#define LOWRANK_LORA_CONVERT_CONVERT_HPP

/// \file
/// Any low-rank change as a LoRA adapter: at a rank, at an energy, at a tolerance, or exactly.
///
///     auto lora = lowrank::to_lora(factored, {.rule = lowrank::rank_rule::energy, .value = 0.99});
///     if (!lora) return log(lora.why.message);
///     log(lora.relative);                                        // exact ||delta - scaling B A||_F / ||delta||_F
///     auto plain = lowrank::plain_lora(adapter, at_start);       // PiSSA, OLoRA, CorDA -> LoRA on the original W
///
/// Adapters go through QR of their two factors and a small core, never through a dense out x in matrix. The result has
/// lora_alpha = r, so its scaling is 1.
///
/// PEFT (lora/conversion.py, subtract_mutated_init) converts the same things through a dense SVD per layer.

#include <algorithm>
#include <concepts>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/operator_columns.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <class M>
inline constexpr bool two_factors = false;
template <real S>
inline constexpr bool two_factors<low_rank<S>> = true;

}  // namespace detail

/// A LoRA adapter that approximates another change, and its error.
template <real S>
struct lora_conversion : fallible {
    lora_adapter<S> adapter = {};
    double error = 0.0;     ///< ||delta - scaling B A||_F.
    double relative = 0.0;  ///< The same over ||delta||_F; 0 for a change of zero.
    error_source how = error_source::exact;
};

/// The factors as they are: B = left, A = right, r = lora_alpha = the inner dimension (sqrt(r) with rsLoRA), scaling 1.
/// Bit-exact; the rank may exceed min(out, in), and `to_lora` makes it small.
template <real S>
[[nodiscard]] lora_adapter<S> as_lora(low_rank<S> change, bool use_rslora = false);

/// The adapter from a decomposition of the change that is already there.
/// \return `unsupported` if the rule needs components that a partial decomposition does not hold.
template <real S>
[[nodiscard]] lora_conversion<S> to_lora(const decomposition<S>& change, const rank_choice& choice,
                                         sigma_split split = sigma_split::square);

/// The best LoRA adapter of a factored change at the chosen rank.
///
/// \return `non_finite` if a factor holds NaN or infinity. The error is exact.
/// \cost   6 k^2 (out + in) flops for the inner dimension k that the change has.
template <real S>
[[nodiscard]] lora_conversion<S> to_lora(const low_rank<S>& change, const rank_choice& choice,
                                         sigma_split split = sigma_split::square);

/// A change with two factors: every `factored_adapter`, and LoRA itself.
template <class A>
concept factored_change = requires(const A& a) {
    { a.delta() } -> std::same_as<low_rank<typename A::scalar>>;
};

/// The same of any adapter with two factors.
template <factored_change A>
[[nodiscard]] lora_conversion<typename A::scalar> to_lora(const A& adapter, const rank_choice& choice,
                                                          sigma_split split = sigma_split::square) {
    return to_lora(adapter.delta(), choice, split);
}

/// The best LoRA adapter of a change that is any linear operator or dense matrix (W' - W, a quantization error), through its dense SVD.
///
/// \return `non_finite` if the change holds NaN or infinity. The error is exact.
/// \cost   That of `svd`, and one dense copy.
template <operator_like M>
requires(!factored_change<M> && !detail::two_factors<M>)
    [[nodiscard]] lora_conversion<operator_scalar<M>> to_lora(const M& change, const rank_choice& choice,
                                                              sigma_split split = sigma_split::square) {
    const auto of_dense = [&](const auto& w) -> lora_conversion<operator_scalar<M>> {
        const auto spec = svd(w);
        if (!spec) {
            return {{.why = spec.why}};
        }
        return to_lora(spec, choice, split);
    };
    if constexpr (detail::dense_weight<M>) {
        return of_dense(change);
    } else {
        return of_dense(dense_of(change));
    }
}

namespace detail {

/// The adapter of the first k triplets.
template <real S>
[[nodiscard]] lora_conversion<S> conversion_at(const decomposition<S>& change, index k, sigma_split split);

/// How many directions `to_lora_fast` tries first, and whether k are few enough to be cheaper than the full SVD.
LOWRANK_API [[nodiscard]] index first_directions(const rank_choice& choice, index rows, index cols);
[[nodiscard]] inline bool few_directions(index k, index rows, index cols) {
    const index full = rows < cols ? rows : cols;
    return 4 * k <= (full > 64 ? full : 64) && k <= full;
}

/// True for rules that `rank_within` can answer before the last singular value.
[[nodiscard]] inline bool reads_leading_values(rank_rule rule) {
    return rule != rank_rule::sum_share && rule != rank_rule::quantile && rule != rank_rule::kohya_cumulative &&
           rule != rank_rule::kohya_frobenius;
}

}  // namespace detail

/// The same without a full SVD, by randomized subspace iteration with as many directions as the rule turns out to need:
/// for large changes of small rank. A rank read from a rule may be off by one where it hangs by a hair.
///
/// Rules over the sum of all singular values, kohya's `sv_fro`, and ranks beyond a quarter of min(out, in) go through
/// the full SVD after all.
/// \return, \cost, and the error's kind as `randomized_svd`.
template <operator_like M>
[[nodiscard]] lora_conversion<operator_scalar<M>> to_lora_fast(
    const M& change, const rank_choice& choice,
    const randomized_svd_options& options = {.oversample = 16, .power_iterations = 3},
    sigma_split split = sigma_split::square) {
    const auto& map = as_operator(change);
    for (index k = detail::first_directions(choice, map.rows(), map.cols());
         detail::reads_leading_values(choice.rule) && detail::few_directions(k, map.rows(), map.cols()); k *= 2) {
        auto f = randomized_svd(change, k, options);
        if (!f) {
            return {{.why = std::move(f.why)}};
        }
        if (const auto rank = rank_within(f, choice)) {
            return detail::conversion_at(f, *rank, split);
        }
        if (k == 0) {
            break;
        }
    }
    if constexpr (detail::dense_weight<M>) {
        return to_lora(change, choice, split);
    } else if constexpr (detail::two_factors<M>) {
        return to_lora(change, choice, split);
    } else {
        return to_lora(dense_of(map), choice, split);
    }
}

/// A trained PiSSA, OLoRA or CorDA adapter as a LoRA adapter on the weight before its init: A' = [A; A0],
/// B' = [B, -B0], of twice the rank and the same scaling, for (W - s B0 A0) + s B A = W + s (B A - B0 A0).
///
/// \pre  Both have one shape, rank, lora_alpha and use_rslora. `initial` is what the init made, before training.
/// \note The factors are copied bit for bit. Through `to_lora` the change often fits the old rank again.
template <real S>
[[nodiscard]] lora_adapter<S> plain_lora(const lora_adapter<S>& trained, const lora_adapter<S>& initial);

/// The adapter of the transposed weight, (scaling B A)^T: between fan-in-fan-out (in x out) storage and out x in.
template <real S>
[[nodiscard]] lora_adapter<S> transpose(const lora_adapter<S>& a);

/// The same change at another rank >= r, by zero rows of A and zero columns of B, with the same scaling: several
/// adapters of different ranks in one batch, or more rank for further training. Bit-exact. \pre rank >= a.rank()
template <real S>
[[nodiscard]] lora_adapter<S> pad_rank(const lora_adapter<S>& a, index rank);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/convert/convert.ipp>
#endif

#endif  // LOWRANK_LORA_CONVERT_CONVERT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_EXTRACT_HPP
#define LOWRANK_LORA_CONVERT_EXTRACT_HPP

/// \file
/// The LoRA adapter that leads from one weight to another: W_tuned ~ W_base + B A.
///
///     auto lora = lowrank::extract_lora(base, tuned, {.rank = {.rule = lowrank::rank_rule::ratio, .value = 0.1}});
///     if (!lora) return log(lora.why.message);
///     if (lora.changed) save(lora.adapter);
///     auto as_kohya = lowrank::extract_lora(base, tuned, lowrank::kohya_extraction(16));
///
/// The five selectors of the field (full, fixed, threshold, ratio, quantile) are rank choices; so is every other rule.
///
/// LyCORIS (utils: extract_linear), kohya sd-scripts (extract_lora_from_models.py), mergekit (extract_lora.py).

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
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
[[nodiscard]] inline extraction_options lycoris_extraction(rank_rule rule, double value) {
    return {.rank = {.rule = rule, .value = value, .min_rank = 1}, .split = sigma_split::left};
}

/// Every singular value ("full"): the difference itself, to rounding.
[[nodiscard]] inline extraction_options full_extraction() {
    return {.rank = {.rule = rank_rule::relative_error, .value = 0}};
}

/// kohya: fixed rank, B = U diag(s), A = V^T, both cut at the 0.99 quantile, weights that moved by less than 0.01
/// skipped.
[[nodiscard]] inline extraction_options kohya_extraction(index rank) {
    return {.rank = fixed_rank(rank), .split = sigma_split::left, .min_difference = 0.01, .clamp_quantile = 0.99};
}

/// mergekit: at most `max_rank` singular values, those above `sv_epsilon`, their roots on both sides.
[[nodiscard]] inline extraction_options mergekit_extraction(index max_rank = 128, double sv_epsilon = 0,
                                                            bool distribute_scale = true) {
    return {.rank = {.rule = rank_rule::threshold, .value = sv_epsilon, .max_rank = max_rank},
            .split = distribute_scale ? sigma_split::square : sigma_split::right};
}

/// An extracted adapter (scaling 1, lora_alpha = r) and what it misses of the difference.
template <real S>
struct lora_extraction {
    lora_adapter<S> adapter = {};  ///< of rank 0 if nothing changed
    bool changed = true;           ///< max |W_tuned - W_base| reached `min_difference` and is not 0.
    double largest_change = 0;     ///< max |W_tuned - W_base|.
    double error = 0;              ///< ||W_tuned - W_base - B A||_F; of the adapter before clamping.
    double relative = 0;           ///< The same over ||W_tuned - W_base||_F.
    error_source how = error_source::exact;
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

namespace detail {

/// torch.quantile with linear interpolation. \pre not empty, 0 <= q <= 1
template <real S>
[[nodiscard]] double quantile_of(std::vector<S> values, double q) {
    const double place = q * static_cast<double>(values.size() - 1);
    const auto low = static_cast<std::ptrdiff_t>(place);
    std::nth_element(values.begin(), values.begin() + low, values.end());
    const auto a = static_cast<double>(values[static_cast<std::size_t>(low)]);
    if (static_cast<double>(low) == place) {
        return a;
    }
    const auto b = static_cast<double>(*std::min_element(values.begin() + low + 1, values.end()));
    return a + (b - a) * (place - static_cast<double>(low));
}

/// Cuts all entries of both factors at the quantile q of all of them, in both directions.
template <real S>
void clamp_factors(lora_adapter<S>& a, double q) {
    if (q >= 1 || a.lora_A.size() + a.lora_B.size() == 0) {
        return;
    }
    std::vector<S> all(a.lora_B.data(), a.lora_B.data() + a.lora_B.size());
    all.insert(all.end(), a.lora_A.data(), a.lora_A.data() + a.lora_A.size());
    const auto high = static_cast<S>(quantile_of(std::move(all), q));
    const auto cut = [high](S x) { return std::min(std::max(x, -high), high); };
    a.lora_A = a.lora_A.unaryExpr(cut);
    a.lora_B = a.lora_B.unaryExpr(cut);
}

}  // namespace detail

/// The adapter of a difference that is already formed, out x in.
template <real S>
[[nodiscard]] lora_extraction<S> extract_lora(const matrix<S>& difference, const extraction_options& options = {}) {
    detail::expects_in_range("extract_lora", "clamp_quantile", options.clamp_quantile, 0.5, 1.0);
    detail::expects(options.min_difference >= 0, "extract_lora: min_difference must not be negative");
    lora_extraction<S> out;
    if (!all_finite(difference)) {
        out.why = {errc::non_finite, "extract_lora: a weight holds NaN or infinity; repair or exclude it"};
        return out;
    }
    out.largest_change = difference.size() == 0 ? 0.0 : static_cast<double>(difference.cwiseAbs().maxCoeff());
    out.changed = out.largest_change > 0 && out.largest_change >= options.min_difference;
    if (!out.changed) {
        out.adapter.lora_A.resize(0, difference.cols());
        out.adapter.lora_B.resize(difference.rows(), 0);
        out.adapter.lora_alpha = 0;
        out.relative = out.largest_change > 0 ? 1.0 : 0.0;
        out.error = static_cast<double>(difference.stableNorm());
        return out;
    }
    lora_conversion<S> found;
    if (options.fast) {
        found = to_lora_fast(difference, options.rank, options.sketch, options.split);
    } else {
        found = to_lora(difference, options.rank, options.split);
    }
    out.why = std::move(found.why);
    out.adapter = std::move(found.adapter);
    out.error = found.error;
    out.relative = found.relative;
    out.how = found.how;
    detail::clamp_factors(out.adapter, options.clamp_quantile);
    return out;
}

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
    matrix<S> difference = tuned.template cast<S>();
    difference -= base.template cast<S>();
    if (options.fan_in_fan_out) {
        difference.transposeInPlace();
    }
    return extract_lora(difference, options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_CONVERT_EXTRACT_HPP

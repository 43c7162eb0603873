// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_EXTRACT_IPP
#define LOWRANK_LORA_CONVERT_EXTRACT_IPP

#include <lowrank/lora/convert/extract.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY extraction_options lycoris_extraction(rank_rule rule, double value) {
    return {.rank = {.rule = rule, .value = value, .min_rank = 1}, .split = sigma_split::left};
}

LOWRANK_BODY extraction_options full_extraction() { return {.rank = {.rule = rank_rule::relative_error, .value = 0}}; }

LOWRANK_BODY extraction_options kohya_extraction(index rank) {
    return {.rank = fixed_rank(rank), .split = sigma_split::left, .clamp_quantile = 0.99};
}

LOWRANK_BODY extraction_options mergekit_extraction(index max_rank, double sv_epsilon, bool distribute_scale) {
    return {.rank = {.rule = rank_rule::threshold, .value = sv_epsilon, .max_rank = max_rank},
            .split = distribute_scale ? sigma_split::square : sigma_split::right};
}

namespace detail {

/// torch.quantile with linear interpolation. \pre not empty, 0 <= q <= 1
template <real S>
double quantile_of(std::vector<S> values, double q) {
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

template <real S>
void clamp_factors(lora_adapter<S>& a, double q) {
    if (q >= 1 || a.lora_A.size() + a.lora_B.size() == 0) {
        return;
    }
    std::vector<S> all(a.lora_B.data(), a.lora_B.data() + a.lora_B.size());
    all.insert(all.end(), a.lora_A.data(), a.lora_A.data() + a.lora_A.size());
    const auto high = static_cast<S>(quantile_of(std::move(all), q));
    const auto cut = [high](S x) { return std::min(std::max(x, -high), high); };
    std::transform(a.lora_A.data(), a.lora_A.data() + a.lora_A.size(), a.lora_A.data(), cut);
    std::transform(a.lora_B.data(), a.lora_B.data() + a.lora_B.size(), a.lora_B.data(), cut);
}

}  // namespace detail

template <real S>
lora_extraction<S> extract_lora(const matrix<S>& difference, const extraction_options& options) {
    detail::expects_in_range("extract_lora", "clamp_quantile", options.clamp_quantile, 0.5, 1.0);
    detail::expects(options.min_difference >= 0, "extract_lora: min_difference must not be negative");
    lora_extraction<S> out;
    if (!all_finite(difference)) {
        out.why = {errc::non_finite, "extract_lora: a weight holds NaN or infinity; repair or exclude it"};
        return out;
    }
    out.largest_change = static_cast<double>(max_abs(difference));
    out.changed = out.largest_change > 0 && out.largest_change >= options.min_difference;
    if (!out.changed) {
        out.adapter.lora_A.resize(0, difference.cols());
        out.adapter.lora_B.resize(difference.rows(), 0);
        out.adapter.lora_alpha = 0;
        out.relative = out.largest_change > 0 ? 1.0 : 0.0;
        out.error = norm_of(difference);
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

#ifdef LOWRANK_COMPILED
#define LOWRANK_EXTRACT_OF(S)                                         \
    template void detail::clamp_factors<S>(lora_adapter<S>&, double); \
    template lora_extraction<S> extract_lora<S>(const matrix<S>&, const extraction_options&);
LOWRANK_EXTRACT_OF(float)
LOWRANK_EXTRACT_OF(double)
#undef LOWRANK_EXTRACT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_CONVERT_EXTRACT_IPP

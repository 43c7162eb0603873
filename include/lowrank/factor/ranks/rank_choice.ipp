// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_CHOICE_IPP
#define LOWRANK_FACTOR_RANKS_RANK_CHOICE_IPP

#include <lowrank/factor/ranks/rank_choice.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY rank_choice fixed_rank(index k) {
    detail::expects(k >= 0, "fixed_rank: the rank must not be negative");
    return {.rule = rank_rule::fixed, .value = static_cast<double>(k)};
}

LOWRANK_BODY std::optional<rank_rule> rank_rule_from_name(std::string_view name) {
    constexpr std::pair<std::string_view, rank_rule> names[] = {
        {"fixed", rank_rule::fixed},
        {"energy", rank_rule::energy},
        {"frobenius_share", rank_rule::frobenius_share},
        {"sum_share", rank_rule::sum_share},
        {"relative_error", rank_rule::relative_error},
        {"threshold", rank_rule::threshold},
        {"ratio", rank_rule::ratio},
        {"quantile", rank_rule::quantile},
        {"kohya_ratio", rank_rule::kohya_ratio},
        {"kohya_cumulative", rank_rule::kohya_cumulative},
        {"kohya_frobenius", rank_rule::kohya_frobenius},
        {"sv_ratio", rank_rule::kohya_ratio},
        {"sv_cumulative", rank_rule::kohya_cumulative},
        {"sv_fro", rank_rule::kohya_frobenius},
    };
    for (const auto& [text, rule] : names) {
        if (text == name) {
            return rule;
        }
    }
    return std::nullopt;
}

LOWRANK_BODY status check(const rank_choice& choice) {
    if (choice.min_rank < 0 || choice.max_rank < choice.min_rank) {
        return {errc::invalid_format, "the limits of a rank must satisfy 0 <= min_rank <= max_rank, got " +
                                          std::to_string(choice.min_rank) + " and " + std::to_string(choice.max_rank)};
    }
    const double v = choice.value;
    const auto require = [&](bool holds, const std::string& allowed) {
        return holds ? status{}
                     : status{errc::invalid_format, "the rank rule needs " + allowed + ", got " + detail::in_words(v)};
    };
    switch (choice.rule) {
        case rank_rule::fixed:
            return require(v >= static_cast<double>(choice.min_rank) && v == std::floor(v) && v <= 1e15,
                           "a whole number of at least " + std::to_string(choice.min_rank));
        case rank_rule::threshold: return require(v >= 0 && is_finite(v), "a number that is not negative");
        case rank_rule::kohya_ratio: return require(v >= 1 && is_finite(v), "a number of at least 1");
        case rank_rule::energy:
        case rank_rule::frobenius_share:
        case rank_rule::sum_share:
        case rank_rule::relative_error:
        case rank_rule::ratio:
        case rank_rule::quantile:
        case rank_rule::kohya_cumulative:
        case rank_rule::kohya_frobenius: break;
    }
    return require(v >= 0 && v <= 1, "a number from 0 to 1");
}

LOWRANK_BODY index choose_rank(const singular_values_in& s, const rank_choice& choice) {
    detail::expects(choice.min_rank >= 0 && choice.max_rank >= choice.min_rank,
                    "choose_rank: needs 0 <= min_rank <= max_rank in a rank_choice");
    const double v = choice.value;
    const auto found = [&]() -> index {
        switch (choice.rule) {
            case rank_rule::fixed:
                detail::expects(v >= 0 && v == std::floor(v) && v <= 1e15,
                                "choose_rank: a fixed rank must be a whole number that is not negative");
                return static_cast<index>(v);
            case rank_rule::energy: return rank_from_energy(s, v);
            case rank_rule::frobenius_share: return rank_from_frobenius_share(s, v);
            case rank_rule::sum_share: return rank_from_sum_share(s, v);
            case rank_rule::relative_error: return rank_from_relative_error(s, v);
            case rank_rule::threshold: return rank_above_threshold(s, v);
            case rank_rule::ratio: return rank_above_ratio(s, v);
            case rank_rule::quantile: return lycoris_quantile_rank(s, v);
            case rank_rule::kohya_ratio: return kohya_ratio_rank(s, v, choice.max_rank);
            case rank_rule::kohya_cumulative: return kohya_cumulative_rank(s, v, choice.max_rank);
            case rank_rule::kohya_frobenius: return kohya_frobenius_rank(s, v, choice.max_rank);
        }
        return 0;
    };
    return std::min<index>(std::clamp(found(), choice.min_rank, choice.max_rank), s.size());
}

template <real S>
result<index> rank_within(const decomposition<S>& f, const rank_choice& choice) {
    if (f.complete() || choice.rule == rank_rule::fixed) {
        return choose_rank(f.s, choice);
    }
    const index k = f.size();
    const double v = choice.value;
    const double first = k > 0 ? static_cast<double>(f.s(0)) : 0.0,
                 last = k > 0 ? static_cast<double>(f.s(k - 1)) : 0.0;
    const bool enough = k >= choice.max_rank;
    double cut = -1.0, tolerance = -1.0;
    switch (choice.rule) {
        case rank_rule::threshold: cut = v; break;
        case rank_rule::ratio: cut = v * first; break;
        case rank_rule::kohya_ratio: cut = first / v; break;
        case rank_rule::energy: tolerance = std::sqrt(std::max(0.0, 1.0 - v)); break;
        case rank_rule::frobenius_share: tolerance = std::sqrt(std::max(0.0, 1.0 - v * v)); break;
        case rank_rule::relative_error: tolerance = v; break;
        default: break;  // needs the sum of all values
    }
    if (cut >= 0.0 && (enough || k == 0 || last <= cut)) {
        return choose_rank(f.s, choice);
    }
    if (tolerance >= 0.0 && (enough || f.error.relative <= tolerance)) {
        index needed = k;
        while (needed > 0 && f.relative_error(needed - 1) <= tolerance) {
            --needed;
        }
        return std::min(std::clamp(needed, choice.min_rank, choice.max_rank), k);
    }
    return status{errc::unsupported, "rank_within: the rule needs more than the leading " + std::to_string(k) +
                                         " components; decompose with svd, or with a larger rank"};
}

#ifdef LOWRANK_COMPILED
template result<index> rank_within(const decomposition<float>&, const rank_choice&);
template result<index> rank_within(const decomposition<double>&, const rank_choice&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_RANK_CHOICE_IPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_RANK_CHOICE_HPP
#define LOWRANK_LORA_CONVERT_RANK_CHOICE_HPP

/// \file
/// A rank rule as a value: conversion, resizing and extraction take one, and tools read one from the command line.
///
///     lowrank::rank_choice by_energy{.rule = lowrank::rank_rule::energy, .value = 0.9, .max_rank = 64};
///     lowrank::index k = lowrank::choose_rank(spec.values(), by_energy);
///
/// The rules themselves, with their sources, are in factor/ranks/rank_rules.hpp.

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How `rank_choice::value` is read. Four tools mean four things by "keep 90 %".
enum class rank_rule {
    fixed,             ///< The rank itself.
    energy,            ///< sum_{i<k} s_i^2 >= value sum s^2 (PEFT's conversion).
    frobenius_share,   ///< The same with sqrt: ||W_k||_F >= value ||W||_F.
    sum_share,         ///< sum_{i<k} s_i >= value sum s.
    relative_error,    ///< ||W - W_k||_F <= value ||W||_F.
    threshold,         ///< s_i > value (LyCORIS "threshold", mergekit's sv_epsilon).
    ratio,             ///< s_i > value s_1 (LyCORIS "ratio").
    quantile,          ///< LyCORIS "quantile": one less than sum_share.
    kohya_ratio,       ///< kohya resize, sv_ratio: s_i > s_1 / value, and one more.
    kohya_cumulative,  ///< kohya resize, sv_cumulative: sum_share, and one more.
    kohya_frobenius,   ///< kohya resize, sv_fro: frobenius_share, and one more.
};

/// A rule, its number, and the ranks it may give.
struct rank_choice {
    rank_rule rule = rank_rule::fixed;
    double value = 8;
    index max_rank = std::numeric_limits<index>::max();
    index min_rank = 0;
};

/// Exactly k. \pre k >= 0
[[nodiscard]] inline rank_choice fixed_rank(index k) {
    detail::expects(k >= 0, "fixed_rank: the rank must not be negative");
    return {.rule = rank_rule::fixed, .value = static_cast<double>(k)};
}

/// The rule's spelling on a command line: the enumerator's name, and the names of the tools (`sv_ratio`,
/// `sv_cumulative`, `sv_fro`).
[[nodiscard]] inline std::optional<rank_rule> rank_rule_from_name(std::string_view name) {
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

/// Whether a choice that came from outside makes sense: the number is in the range of its rule, and
/// 0 <= min_rank <= max_rank. `choose_rank` takes what passes.
///
/// \return `invalid_format` with what was found and what is allowed.
[[nodiscard]] inline status check(const rank_choice& choice) {
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

/// The rank the rule reads from descending values, within [min_rank, max_rank] and at most s.size().
///
/// \pre `value` is in the range of its rule; a fixed rank is a whole number that is not negative.
template <real S>
[[nodiscard]] index choose_rank(const vector<S>& s, const rank_choice& choice) {
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

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_CONVERT_RANK_CHOICE_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_CHOICE_HPP
#define LOWRANK_FACTOR_RANKS_RANK_CHOICE_HPP

/// \file
/// A rank rule as a value: conversion, resizing and extraction take one, and tools read one from the command line.
///
///     lowrank::rank_choice by_energy{.rule = lowrank::rank_rule::energy, .value = 0.9, .max_rank = 64};
///     lowrank::index k = lowrank::choose_rank(spec.s, by_energy);
///
/// The rules themselves, with their sources, are in factor/ranks/rank_rules.hpp.

#include <limits>
#include <optional>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
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
LOWRANK_API [[nodiscard]] rank_choice fixed_rank(index k);

/// The rule's spelling on a command line: the enumerator's name, and the names of the tools (`sv_ratio`,
/// `sv_cumulative`, `sv_fro`).
LOWRANK_API [[nodiscard]] std::optional<rank_rule> rank_rule_from_name(std::string_view name);

/// Whether a choice that came from outside makes sense: the number is in the range of its rule, and
/// 0 <= min_rank <= max_rank. `choose_rank` takes what passes.
///
/// \return `invalid_format` with what was found and what is allowed.
LOWRANK_API [[nodiscard]] status check(const rank_choice& choice);

/// The rank the rule reads from descending values, within [min_rank, max_rank] and at most s.size().
///
/// \pre `value` is in the range of its rule; a fixed rank is a whole number that is not negative.
LOWRANK_API [[nodiscard]] index choose_rank(const singular_values_in& s, const rank_choice& choice);

/// The same of a decomposition, also a partial one, whose evidence says how much is missing: at most f.size().
///
/// \pre    As `choose_rank`.
/// \return `unsupported` if the rule needs components that a partial decomposition does not hold.
template <real S>
[[nodiscard]] result<index> rank_within(const decomposition<S>& f, const rank_choice& choice);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/ranks/rank_choice.ipp>
#endif

#endif  // LOWRANK_FACTOR_RANKS_RANK_CHOICE_HPP

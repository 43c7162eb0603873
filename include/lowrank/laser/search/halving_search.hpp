// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP

/// \file
/// All edits on a few samples, the better ones on more, the best on all: successive halving.
///
///     auto found = lowrank::halving_search(model, {.validation = {0, 400}, .held_out = {400, 2000}});
///     auto fixed = lowrank::halving_search(model, {.validation = {0, 400}}, {.first_samples = 8, .factor = 4});
///     if (!fixed.warning.empty()) std::puts(fixed.warning.c_str());     // 8 samples could not tell the edits apart
///
/// Every candidate of a round is scored on the same samples, so that only differences between candidates count, not how
/// hard the samples are: paired differences of log-probability need few samples. Half of the next round's candidates
/// are those with the most right answers, half those with the smallest mean log-loss.
/// Jamieson, Talwalkar: Non-stochastic best arm identification, arXiv 1502.07943.

#include <cstddef>
#include <optional>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/detail/searched_model.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct halving_options {
    /// Validation samples of the first round. Without a number it starts with 8 and doubles them until they tell the
    /// candidates apart: a window of tokens says much, a right or wrong answer little.
    std::optional<index> first_samples = {};
    index factor = 4;     ///< Each round has so many times the samples and one part in so many of the candidates.
    index finalists = 4;  ///< When no more are left, they are scored on all validation samples.
};

namespace detail {

LOWRANK_API void expects_halving(const halving_options& o);

/// What a round says about its candidates. Compared are the best and the median candidate, sample by sample: their
/// right answers if the candidates differ in any, otherwise their losses. By chance alone the best of c equal
/// candidates would show `expected_max_of_normals(c)` standard errors; less than 2 are never enough.
LOWRANK_API search_round round_of(const std::vector<search_candidate>& candidates,
                                  const std::vector<sample_scores>& scores, std::vector<std::size_t> alive);

/// The candidates named in `alive`, the most promising first: in turn the one with the most right answers (ties by
/// log-loss) and the one with the smallest log-loss.
LOWRANK_API std::vector<std::size_t> in_turn(const std::vector<search_candidate>& candidates,
                                             const std::vector<std::size_t>& alive);

/// The first `count` of them, in the order of `alive`.
LOWRANK_API std::vector<std::size_t> most_promising(const std::vector<search_candidate>& candidates,
                                                    const std::vector<std::size_t>& alive, std::size_t count);

/// The race: the candidates of the result come in with their edits and leave with their scores, those dropped early on
/// fewer samples; those scored on all are judged.
LOWRANK_API [[nodiscard]] status race(search_session& session, const halving_options& halving, search_result& out);

/// The search on an opened model.
LOWRANK_API [[nodiscard]] search_result run_halving(searched_model& model, const search_options& options,
                                                    const halving_options& halving);

}  // namespace detail

/// The best edit of all weights and fractions by successive halving. The candidates that reach the last round are
/// judged as in `exhaustive_search`; the others carry the score of the round in which they were dropped, on its fewer
/// samples. `rounds` of the result says how well each round separated its candidates, `warning` if the first could
/// not.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; first_samples, finalists >= 1, factor >= 2.
/// \return As `exhaustive_search`.
/// \cost   With c candidates and a first round of n samples about c n (1 + log(N / n) / log(factor)) sample evaluations
///         instead of c N, and the finalists' N.
/// \note   Deterministic if the evaluator is. The order of the samples should be random: the first ones stand for all.
template <storage T>
[[nodiscard]] search_result halving_search(const search_model<T>& model, const search_options& options,
                                           const halving_options& halving = {}) {
    return detail::run_halving(*detail::open_model("halving_search", model, options), options, halving);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/halving_search.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP

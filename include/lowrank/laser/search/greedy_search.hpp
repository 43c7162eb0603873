// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GREEDY_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_GREEDY_SEARCH_HPP

/// \file
/// Several edits at once: weight by weight, each kept only if the model with all earlier ones becomes better.
///
///     auto last_first = lowrank::reordered(model, {3, 2, 1, 0});
///     auto found = lowrank::greedy_search(last_first, {.validation = {0, 200}, .held_out = {200, 1000}});
///     if (found) auto done = lowrank::apply_edits<float>(model.weights, found.edits());
///
/// Gains of single edits do not add up, so each step is judged with the others in place. The composition of LASER
/// (Sharma, Ash, Misra, arXiv 2312.13558, section 5.1), with a strict rule and a real rollback at every step; with a
/// width above one, a beam search that follows the best few sets of edits.

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/search/detail/searched_model.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct greedy_options {
    int passes = 1;         ///< Times the weights are visited; it ends earlier when a pass keeps nothing.
    index width = 1;        ///< Sets of edits followed at a time: 1 is greedy, more is a beam.
    bool unimodal = false;  ///< Look for each matrix's best fraction by golden section instead of trying all.
};

namespace detail {

/// The search on an opened model.
LOWRANK_API [[nodiscard]] search_result run_greedy(searched_model& model, const search_options& options,
                                                   const greedy_options& greedy);

}  // namespace detail

/// Visits the weights in the order of the model. At each, tries every edit with those kept so far in place, and keeps
/// the best one if it is strictly better than the model so far. With more than one pass the weights still unedited are
/// visited again, until a pass keeps nothing. With a width above 1 the best few sets of edits are followed, and the
/// best of them at the end is the winner. Its edits are in the order in which they were kept, each strictly better than
/// the one before.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; passes, width >= 1.
/// \return As `exhaustive_search`, without `selection`: which candidates there are depends on the samples, so that no
///         correction by their number would be valid.
/// \cost   As `exhaustive_search` for each pass and each set followed. Memory: a copy of each edited weight, and
///         factor_bytes. An edit in layer l is evaluated from the lowest edited layer on: the last layer first is
///         cheapest.
/// \note   Deterministic if the evaluator is. The score on the validation samples never falls from step to step.
template <storage T>
[[nodiscard]] search_result greedy_search(const search_model<T>& model, const search_options& options,
                                          const greedy_options& greedy = {}) {
    return detail::run_greedy(*detail::open_model("greedy_search", model, options), options, greedy);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/greedy_search.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_GREEDY_SEARCH_HPP

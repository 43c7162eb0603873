// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_SEARCH_HPP

/// \file
/// Which matrix, reduced to which rank, makes the model better: try all, choose on some samples, report on others.
///
///     std::vector<lowrank::named_weight<float>> weights = {{"mlp.up", up}, {"mlp.down", down}};
///     auto found = lowrank::exhaustive_search<float>({.weights = weights, .evaluate = model.evaluate},
///                                                    {.validation = {0, 200}, .held_out = {200, 1000}});
///     if (found) auto done = lowrank::apply_edits<float>(weights, found.edits());   // none if nothing is better
///
/// LASER's search (Sharma, Ash, Misra, arXiv 2312.13558, sections 4 and 5) with the exact truncation, one
/// factorization per matrix for all ranks, and the held-out samples evaluated for the winner only. Searches that
/// evaluate less are in halving_search.hpp and gradient_search.hpp.

#include <lowrank/core/config.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/search/detail/searched_model.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct exhaustive_options {
    bool unimodal = false;  ///< Look for each matrix's best fraction by golden section instead of trying all.
};

namespace detail {

/// The search on an opened model.
LOWRANK_API [[nodiscard]] search_result run_exhaustive(searched_model& model, const search_options& options,
                                                       const exhaustive_options& exhaustive);

}  // namespace detail

/// Tries every weight at every fraction, one at a time. The winner is the strictly best on the validation samples: more
/// right, or as many right and a smaller log-loss. The unedited model wins ties; among equal candidates the first wins.
///
/// Each weight is factorized once; fractions that mean the same rank are evaluated once. When the search returns, for
/// whatever reason, every weight has the bits it had.
///
/// \pre    fractions in [0, 1]; both ranges valid and disjoint, `validation` not empty.
/// \return `why` is `cancelled` if the callback says so (candidates tried so far are listed), `non_finite` if a weight
///         or the unedited model's loss is not finite, or the status the evaluator gave.
/// \cost   one spectrum per weight; one pass over the validation samples per distinct (weight, rank) and one for the
///         unedited model; two over the held-out samples. Memory: factor_bytes of the options, or one weight with its
///         spectrum if that is more, and a copy of one weight.
/// \note   Deterministic if the evaluator is, with or without an executor.
template <storage T>
[[nodiscard]] search_result exhaustive_search(const search_model<T>& model, const search_options& options,
                                              const exhaustive_options& exhaustive = {}) {
    return detail::run_exhaustive(*detail::open_model("exhaustive_search", model, options), options, exhaustive);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/search.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_SEARCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_TRY_CANDIDATES_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_TRY_CANDIDATES_HPP

/// \file
/// Candidates of one weight or group, each on all validation samples.
///
///     status why = detail::try_candidates(session, session.candidates(weight), false, result);

#include <functional>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Looks for the largest of n values that rise, then fall, by golden section on whole numbers. `better_at(i, j)` says
/// whether value i is larger than value j; it is called for all points the outcome depends on.
LOWRANK_API void golden_section(index n, const std::function<bool(index, index)>& better_at);

/// Evaluates candidates on the validation samples, all or, for each way of editing, by golden section over its
/// fractions; appends those that were tried, and judges them. Equal ones are evaluated once.
LOWRANK_API [[nodiscard]] status try_candidates(search_session& session, const std::vector<search_candidate>& wanted,
                                                bool unimodal, search_result& out);

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/detail/try_candidates.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_DETAIL_TRY_CANDIDATES_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_IPP
#define LOWRANK_LASER_SEARCH_SEARCH_IPP

#include <lowrank/laser/search/search.hpp>

#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/detail/try_candidates.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY search_result run_exhaustive(searched_model& model, const search_options& options,
                                          const exhaustive_options& exhaustive) {
    search_session session("exhaustive_search", model, options);
    const auto weights = static_cast<index>(model.weights.size());
    for (index w = 0; w < weights; ++w) {
        session.extend(session.candidates(w).size());
    }
    return session.run([&](search_result& out) {
        status why = {};
        for (index w = 0; w < weights && why; ++w) {
            why = try_candidates(session, session.candidates(w), exhaustive.unimodal, out);
        }
        return why;
    });
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_SEARCH_IPP

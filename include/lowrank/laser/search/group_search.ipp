// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GROUP_SEARCH_IPP
#define LOWRANK_LASER_SEARCH_GROUP_SEARCH_IPP

#include <lowrank/laser/search/group_search.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/detail/try_candidates.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY search_result run_group(searched_model& model, std::span<const weight_group> groups,
                                     const search_options& options) {
    search_session session("group_search", model, options);
    for (const auto& group : groups) {
        expects(!group.weights.empty(), "group_search: a group must have a weight");
        for (auto w = group.weights.begin(); w != group.weights.end(); ++w) {
            expects_in_range("group_search", "a weight", *w, index{0}, static_cast<index>(model.weights.size()) - 1);
            expects(std::find(group.weights.begin(), w, *w) == w, "group_search: a group must name each weight once");
        }
        session.extend(session.candidates(group.name, group.weights).size());
    }
    return session.run([&](search_result& out) {
        status why = {};
        for (std::size_t g = 0; g < groups.size() && why; ++g) {
            why = try_candidates(session, session.candidates(groups[g].name, groups[g].weights), false, out);
        }
        return why;
    });
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GROUP_SEARCH_IPP

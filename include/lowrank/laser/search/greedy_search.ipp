// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GREEDY_SEARCH_IPP
#define LOWRANK_LASER_SEARCH_GREEDY_SEARCH_IPP

#include <lowrank/laser/search/greedy_search.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/detail/try_candidates.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY search_result run_greedy(searched_model& model, const search_options& options,
                                      const greedy_options& greedy) {
    expects(greedy.passes >= 1 && greedy.width >= 1, "greedy_search: passes and width must be at least 1");
    search_session session("greedy_search", model, options);
    const auto weights = static_cast<index>(model.weights.size());
    for (index w = 0; w < weights; ++w) {
        session.extend(static_cast<std::size_t>(greedy.passes) * session.candidates(w).size());
    }
    // Extends each set by each edit of weight w that makes it better, and keeps the best sets of all.
    const auto visit = [&](index w, std::vector<search_candidate>& sets, search_result& out) -> status {
        auto grown = sets;
        for (const auto& set : sets) {
            if (std::any_of(set.edits.begin(), set.edits.end(), [w](const auto& e) { return e.weight == w; })) {
                continue;
            }
            const auto first = out.candidates.size();
            if (status why = try_candidates(session, session.candidates(w, set.edits), greedy.unimodal, out); !why) {
                return why;
            }
            for (auto i = first; i < out.candidates.size(); ++i) {
                if (const auto& c = out.candidates[i]; c.why && better(c.validation, set.validation)) {
                    grown.push_back(c);
                    grown.back().edits.back().validation = c.validation;
                }
            }
        }
        std::stable_sort(grown.begin(), grown.end(),
                         [](const auto& a, const auto& b) { return better(a.validation, b.validation); });
        const auto last = std::unique(grown.begin(), grown.end(),
                                      [](const auto& a, const auto& b) { return same_edits(a.edits, b.edits); });
        grown.erase(last, grown.end());
        grown.resize(std::min(grown.size(), static_cast<std::size_t>(greedy.width)));
        sets = std::move(grown);
        return {};
    };
    search_result found = session.run([&](search_result& out) -> status {
        if (status why = session.held_out_before(out); !why) {  // now, while no layer is edited
            return why;
        }
        std::vector<search_candidate> sets = {{.validation = out.baseline}};
        bool improved = true;
        for (int pass = 0; pass < greedy.passes && improved; ++pass) {
            const auto before = sets.front().edits;
            for (index w = 0; w < weights; ++w) {
                if (status why = visit(w, sets, out); !why) {
                    return why;
                }
            }
            improved = !same_edits(before, sets.front().edits);
        }
        return {};
    });
    found.selection.reset();
    return found;
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GREEDY_SEARCH_IPP

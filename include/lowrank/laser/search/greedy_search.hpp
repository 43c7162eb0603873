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

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/detail/try_candidates.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct greedy_options {
    int passes = 1;         ///< Times the weights are visited; it ends earlier when a pass keeps nothing.
    index width = 1;        ///< Sets of edits followed at a time: 1 is greedy, more is a beam.
    bool unimodal = false;  ///< Look for each matrix's best fraction by golden section instead of trying all.
};

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
    detail::expects(greedy.passes >= 1 && greedy.width >= 1, "greedy_search: passes and width must be at least 1");
    detail::search_session<T> session("greedy_search", model, options);
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
            if (status why = detail::try_candidates(session, session.candidates(w, set.edits), greedy.unimodal, out);
                !why) {
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
        const auto last = std::unique(grown.begin(), grown.end(), [](const auto& a, const auto& b) {
            return detail::same_edits(a.edits, b.edits);
        });
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
            improved = !detail::same_edits(before, sets.front().edits);
        }
        return {};
    });
    found.selection.reset();
    return found;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GREEDY_SEARCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GROUP_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_GROUP_SEARCH_HPP

/// \file
/// Several weights edited as one: the same share of the rank for all matrices of an mlp, of a layer, of the model.
///
///     auto groups = lowrank::group_weights(model, [](const std::string& name, lowrank::index layer) {
///         return name.find(".mlp.") != std::string::npos ? "mlp of layer " + std::to_string(layer) : std::string();
///     });
///     auto found = lowrank::group_search(model, groups, {.validation = {0, 200}, .held_out = {200, 1000}});
///
/// The groups mlp, attn and all, and layer number -1, of LASER's code (github: pratyushasharma/laser; Sharma, Ash,
/// Misra, arXiv 2312.13558).

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Weights that are edited together, as numbers into the model's list.
struct weight_group {
    std::string name = {};
    std::vector<index> weights = {};
};

/// Groups by name, in the order in which their first weights come: `name_of(weight, layer)` says which group a weight
/// belongs to; empty for none.
template <storage T, std::invocable<const std::string&, index> F>
[[nodiscard]] std::vector<weight_group> group_weights(const search_model<T>& model, F&& name_of) {
    std::vector<weight_group> out;
    for (index w = 0; w < static_cast<index>(model.weights.size()); ++w) {
        const std::string name = name_of(model.weights[static_cast<std::size_t>(w)].name, model.layer(w));
        if (name.empty()) {
            continue;
        }
        auto at = std::find_if(out.begin(), out.end(), [&](const weight_group& g) { return g.name == name; });
        if (at == out.end()) {
            at = out.insert(out.end(), {.name = name});
        }
        at->weights.push_back(w);
    }
    return out;
}

/// One edit of all weights of a group.
struct group_candidate {
    index group = 0;                      ///< Which of the groups given.
    double fraction = 0;                  ///< rho, or the share of entries kept, for each of its weights.
    std::vector<greedy_step> edits = {};  ///< The edits, by weight; `validation` is that of all together.
    double relative_error = 0;            ///< ||W - W'||_F / ||W||_F over all its weights, exact.
    index parameters = 0;                 ///< Numbers in the factors of what stays.
    score validation = {};                ///< On the samples that choose.
    status why = {};                      ///< Not ok: the edited model's loss is not finite; it cannot win.
};

struct group_result : search_record {
    score best = {};  ///< The best of the unedited model and all candidates, on the samples that choose.
    std::optional<index> winner = {};               ///< Into `candidates`; none: the unedited model is the best.
    std::vector<group_candidate> candidates = {};   ///< All that were tried, group by group.
    std::optional<paired_evidence> selection = {};  ///< As `evidence`, on the samples that choose: see `corrected_p`.

    /// The winner's edits, for `apply_edits`; none without a winner.
    [[nodiscard]] std::vector<edit> best_edits() const {
        std::vector<edit> out;
        if (winner) {
            for (const auto& step : candidates[static_cast<std::size_t>(*winner)].edits) {
                out.push_back(step.what);
            }
        }
        return out;
    }
};

namespace detail {

/// The edits that the options ask for of all weights of a group: those that every one of its weights has.
template <storage T>
std::vector<edit_set> sets_of_group(const search_session<T>& session, const weight_group& group) {
    std::vector<edit_set> out;
    for (std::size_t i = 0; i < group.weights.size(); ++i) {
        std::vector<edit_set> grown;
        for (const auto& c : session.candidates_of(group.weights[i])) {
            const auto joins = [&](const edit_set& set) {
                const auto& first = set.steps.front();
                return first.fraction == c.fraction && first.what.groups == c.what.groups &&
                       first.what.clustered == c.what.clustered && first.what.entries == c.what.entries;
            };
            const auto at = std::find_if(out.begin(), out.end(), joins);
            if (i > 0 && at == out.end()) {
                continue;
            }
            grown.push_back(i > 0 ? *at : edit_set{});
            grown.back().steps.push_back({.what = c.what, .fraction = c.fraction, .weight = group.weights[i]});
            grown.back().text += to_text(c.what) + "\t";
        }
        out = std::move(grown);
    }
    return out;
}

}  // namespace detail

/// Tries every edit of every group: each weight of the group truncated (or pruned) to the same fraction, together.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; groups are not empty and name each weight at most once.
/// \return As `exhaustive_search`. A group whose weights have no edit in common has no candidate.
/// \cost   One pass over the choosing samples from the group's lowest layer on for each distinct set of edits, and a
///         factorization of each weight for each group it is in, once where all fit factor_bytes. Memory: a copy of
///         each weight of a group, or its factors with `place`.
/// \note   Deterministic if the evaluator is.
template <storage T>
[[nodiscard]] group_result group_search(const search_model<T>& model, std::span<const weight_group> groups,
                                        const search_options& options) {
    group_result out;
    detail::search_session<T> session("group_search", model, options, options.held_out.size() > 0 ? 3 : 1);
    std::vector<std::vector<detail::edit_set>> sets;
    for (const auto& group : groups) {
        detail::expects(!group.weights.empty(), "group_search: a group must have a weight");
        for (std::size_t i = 0; i < group.weights.size(); ++i) {
            detail::expects_in_range("group_search", "a weight", group.weights[i], index{0},
                                     static_cast<index>(model.weights.size()) - 1);
            detail::expects(std::find(group.weights.begin(), group.weights.begin() + static_cast<std::ptrdiff_t>(i),
                                      group.weights[i]) == group.weights.begin() + static_cast<std::ptrdiff_t>(i),
                            "group_search: a group must name each weight once");
        }
        sets.push_back(detail::sets_of_group(session, group));
        session.extend(static_cast<index>(sets.back().size()));
    }
    out.why = [&]() -> status {
        detail::edits_in_place<T> place(model, session);
        if (status why = session.begin(out.baseline); !why) {
            return why;
        }
        out.best = out.baseline;
        const auto score_of = [&](sample_range range, const detail::edit_set& set) -> result<sample_scores> {
            if (status why = place.put(set); !why) {
                return why;
            }
            const index first = place.first_layer(set);
            return session.score_range(range, set.text, first < 0 ? model.layers : first);
        };
        sample_scores chosen;                      // of the best so far
        std::map<std::string, std::size_t> tried;  // small matrices have the same rank at several fractions
        for (std::size_t g = 0; g < groups.size(); ++g) {
            for (const auto& set : sets[g]) {
                if (status why = session.proceed(groups[g].name, true); !why) {
                    return why;
                }
                group_candidate c{.group = static_cast<index>(g), .fraction = set.steps.front().fraction};
                c.edits = set.steps;
                if (const auto known = tried.find(set.text); known != tried.end()) {
                    const auto& same = out.candidates[known->second];
                    c.parameters = same.parameters;
                    c.relative_error = same.relative_error;
                    c.validation = same.validation;
                    c.why = same.why;
                } else {
                    const auto scores = score_of(options.validation, set);
                    if (!scores && scores.error().code != errc::non_finite) {
                        return scores.error();
                    }
                    c.parameters = place.parameters();
                    c.relative_error = place.relative_error();
                    c.why = scores ? status{} : scores.error();
                    c.validation = scores ? summarize(*scores) : score{};
                    if (c.why && better(c.validation, out.best)) {
                        out.best = c.validation;
                        out.winner = static_cast<index>(out.candidates.size());
                        chosen = *scores;
                    }
                    tried.emplace(set.text, out.candidates.size());
                }
                for (auto& step : c.edits) {
                    step.validation = c.validation;
                }
                out.candidates.push_back(std::move(c));
            }
        }
        detail::edit_set best;
        if (out.winner) {
            best.steps = out.candidates[static_cast<std::size_t>(*out.winner)].edits;
            for (const auto& step : best.steps) {
                best.text += to_text(step.what) + "\t";
            }
            out.selection = compare_paired(session.unedited(), chosen, options.confidence);
        }
        if (options.held_out.size() > 0) {
            if (status why = session.proceed("held-out samples, before", true); !why) {
                return why;
            }
            const auto before = score_of(options.held_out, {});
            if (!before) {
                return before.error();
            }
            out.held_out_before = out.held_out_after = summarize(*before);
            if (status why = session.proceed("held-out samples, after", true); !why) {
                return why;
            }
            if (out.winner) {
                const auto after = score_of(options.held_out, best);
                if (!after) {
                    return after.error();
                }
                out.held_out_after = summarize(*after);
                out.evidence = compare_paired(*before, *after, options.confidence);
            }
        }
        (void)session.proceed("done", true);
        return {};
    }();
    session.count_into(out);
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GROUP_SEARCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GROUP_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_GROUP_SEARCH_HPP

/// \file
/// Several weights edited as one: the same share of the rank for all matrices of an mlp, of a layer, of the model.
///
///     auto groups = lowrank::group_weights(model, [](const std::string& name, lowrank::index layer) {
///         return name.find(".mlp.") != std::string::npos ? "mlp of layer " + std::to_string(layer) : std::string();
///     });
///     auto found = lowrank::group_search<float>(model, groups, {.validation = {0, 200}, .held_out = {200, 1000}});
///
/// The groups mlp, attn and all, and layer number -1, of LASER's code (github: pratyushasharma/laser; Sharma, Ash,
/// Misra, arXiv 2312.13558).

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/detail/try_candidates.hpp>
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

/// Tries every edit of every group: each weight of the group truncated (or pruned) to the same fraction, together. A
/// candidate has the name of its group.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; groups are not empty and name each weight at most once.
/// \return As `exhaustive_search`. A group whose weights have no edit in common has no candidate.
/// \cost   One pass over the validation samples from the group's lowest layer on for each distinct set of edits, and a
///         factorization of each weight for each group it is in, once where all fit factor_bytes. Memory: a copy of
///         each weight of a group, or its factors with `override_weight`.
/// \note   Deterministic if the evaluator is.
template <storage T>
[[nodiscard]] search_result group_search(const search_model<T>& model, std::span<const weight_group> groups,
                                         const search_options& options) {
    detail::search_session<T> session("group_search", model, options);
    for (const auto& group : groups) {
        detail::expects(!group.weights.empty(), "group_search: a group must have a weight");
        for (auto w = group.weights.begin(); w != group.weights.end(); ++w) {
            detail::expects_in_range("group_search", "a weight", *w, index{0},
                                     static_cast<index>(model.weights.size()) - 1);
            detail::expects(std::find(group.weights.begin(), w, *w) == w,
                            "group_search: a group must name each weight once");
        }
        session.extend(session.candidates(group.name, group.weights).size());
    }
    return session.run([&](search_result& out) {
        status why = {};
        for (std::size_t g = 0; g < groups.size() && why; ++g) {
            why = detail::try_candidates(session, session.candidates(groups[g].name, groups[g].weights), false, out);
        }
        return why;
    });
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GROUP_SEARCH_HPP

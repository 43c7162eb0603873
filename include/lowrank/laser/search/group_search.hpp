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

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/search/detail/searched_model.hpp>
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

namespace detail {

/// The search on an opened model.
LOWRANK_API [[nodiscard]] search_result run_group(searched_model& model, std::span<const weight_group> groups,
                                                  const search_options& options);

}  // namespace detail

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
    return detail::run_group(*detail::open_model("group_search", model, options), groups, options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/group_search.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_GROUP_SEARCH_HPP

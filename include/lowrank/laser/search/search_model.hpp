// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_MODEL_HPP
#define LOWRANK_LASER_SEARCH_SEARCH_MODEL_HPP

/// \file
/// What a search needs of an engine: its weights and its scores; more if the engine can do more.
///
///     lowrank::search_model<float> model{.weights = {{"up", up}, {"down", down}}, .evaluate = score_samples};
///     auto found = lowrank::exhaustive_search(model, {.validation = {0, 200}, .held_out = {200, 1000}});
///
/// The first two fields are the minimum. With `layers`, `layer_of` and `evaluate_from_layer` an edit of layer l costs
/// the layers from l on; with `gradients` one backward pass says which weights are promising (gradient_search.hpp);
/// with `evaluate_ranks` all ranks of a weight cost one product; with `read` and `override_weight` the weights need not
/// be in memory.

#include <functional>
#include <span>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/named_weight.hpp>
#include <lowrank/laser/edits/nested_ranks.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Receives, for one weight (its number in `search_model::weights`), the layer's input x (in x N) and the gradient dy
/// (out x N) at its output; group j of samples is the columns [starts[j], starts[j + 1]), and dy the gradient of each
/// group's own loss.
template <real S>
using gradient_sink =
    std::function<void(index weight, const_column_view<S> x, const_column_view<S> dy, std::span<const index> starts)>;

template <storage T>
struct search_model {
    /// The weights a search may edit, in place. Everything has its bits back when the search returns. With `read` and
    /// `override_weight` only names and shapes count, and the data may be null.
    std::vector<named_weight<T>> weights = {};
    /// Scores samples with the model as it is.
    evaluator evaluate = {};

    /// How many layers a sample passes; what an evaluation costs is counted in sample-layers.
    index layers = 1;
    /// The layer in [0, layers) of each weight; empty: all in layer 0.
    std::vector<index> layer_of = {};
    /// Scores as `evaluate` does, and may start at the input of layer `first`, kept from an earlier pass: all edits in
    /// place are in layers `first` and up, so that the input is that of the unedited model. `first` = `layers`: nothing
    /// is edited.
    std::function<result<sample_scores>(sample_range, index first)> evaluate_from_layer = {};
    /// One backward pass over the samples: calls the sink for every weight, in one thread, in the same order each time.
    /// A group of samples may be as small as the engine can separate.
    std::function<status(sample_range, const gradient_sink<compute_t<T>>&)> gradients = {};
    /// Scores the samples once for each rank, with the weight truncated to that rank and the other edits as they are,
    /// none of them below layer `first`: the same as edit by edit, to rounding. A log-loss may be NaN or infinite.
    std::function<result<std::vector<sample_scores>>(sample_range, index weight, const nested_ranks<compute_t<T>>&,
                                                     index first)>
        evaluate_ranks = {};
    /// A copy of a weight's own values, whatever overrides it.
    std::function<result<row_matrix<T>>(index weight)> read = {};
    /// A weight's decomposition; empty: `svd`. A partial one, of `krylov_svd` or from a file, serves the edits that keep
    /// none of the components it lacks; `svd` takes over where an edit keeps more.
    std::function<decomposition<compute_t<T>>(index weight, const_weight_view<T> values)> decompose = {};
    /// From now on the weight multiplies as this says, of which the engine keeps a copy; null: as itself again.
    std::function<void(index weight, const weight_override<compute_t<T>>*)> override_weight = {};

    /// The layer of a weight. \pre 0 <= weight < weights.size()
    [[nodiscard]] index layer(index weight) const;
};

/// The same model with its weights in another order: weight i is weight order[i] of `m`. For a greedy search the last
/// layer comes first. (Changing the order of `weights` alone would leave the hooks with the old one.)
/// \pre `order` holds each of 0 .. weights.size() - 1 once
template <storage T>
[[nodiscard]] search_model<T> reordered(const search_model<T>& m, const std::vector<index>& order);

/// Checks the model of a search; `function` is named in the message.
template <storage T>
void expects_search_model(const char* function, const search_model<T>& m);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/search_model.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_SEARCH_MODEL_HPP

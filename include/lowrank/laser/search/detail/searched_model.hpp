// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_SEARCHED_MODEL_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_SEARCHED_MODEL_HPP

/// \file
/// A model as searches see it, whatever its weights are stored in, so that a search is compiled once.
///
///     auto model = detail::open_model("my_search", search_model, options);
///     lowrank::status why = model->put(candidate);            // its edits, and no others

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/component_set.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A weight's name, shape and layer.
struct searched_weight {
    std::string name;
    index rows = 0;
    index cols = 0;
    index layer = 0;
};

/// Factorizes, edits and scores the weights of a `search_model`. When it is gone, every weight has the bits it had.
class searched_model {
public:
    virtual ~searched_model() = default;

    std::vector<searched_weight> weights = {};
    index layers = 1;
    /// The hooks of these names; the second may be empty.
    const evaluator* evaluate = nullptr;
    const std::function<result<sample_scores>(sample_range, index first)>* evaluate_from_layer = nullptr;
    bool has_ranks = false;      ///< The model can `evaluate_ranks`,
    bool has_gradients = false;  ///< and has `gradients`.

    /// Of the names and bits of all weights.
    [[nodiscard]] virtual result<std::uint64_t> fingerprint() const = 0;
    /// As `edits_in_place::put`.
    [[nodiscard]] virtual status put(search_candidate& c) = 0;
    /// How much keeping these components takes away from a weight. \return What factorizing it says.
    [[nodiscard]] virtual result<edit_size> size_of(index weight, const component_set& keep) = 0;
    /// Scores of the samples for each of the weight's `ranks`, at most `samples_per_call` samples at once, with the
    /// edits in place, none of them below layer `first`.
    [[nodiscard]] virtual result<std::vector<sample_scores>> evaluate_ranks(sample_range range, index weight,
                                                                            std::vector<index> ranks, index first,
                                                                            index samples_per_call) = 0;
    /// The gradients of the singular values of every weight; `passes` counts the backward passes. Weights whose
    /// factorizations do not fit the budget together are worked on in turn, with a pass for each turn.
    [[nodiscard]] virtual result<std::vector<sigma_scores>> gradients(sample_range range, index& passes) = 0;
    /// Spectra computed so far.
    [[nodiscard]] virtual index factorizations() const = 0;
};

/// Checks a model and opens it. It must outlive what is returned. \pre As for every search; `function` is named in the
/// message.
template <storage T>
[[nodiscard]] std::unique_ptr<searched_model> open_model(const char* function, const search_model<T>& model,
                                                         const search_options& options);

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/detail/searched_model.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_DETAIL_SEARCHED_MODEL_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GREEDY_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_GREEDY_SEARCH_HPP

/// \file
/// Several edits at once: weight by weight, each kept only if the model with all earlier ones becomes better.
///
///     std::reverse(weights.begin(), weights.end());              // the last layer first
///     auto r = lowrank::greedy_search<float>(weights, evaluate, {.validation = {0, 200}, .held_out = {200, 1000}});
///     if (r) auto done = lowrank::apply_edits<float>(weights, r.edits());
///
/// Gains of single edits do not add up, so each step is judged with the others in place. The composition of LASER
/// (Sharma, Ash, Misra, arXiv 2312.13558, section 5.1), with a strict rule and a real rollback at every step; with a
/// width above one, a beam search that follows the best few sets of edits.

#include <algorithm>
#include <cmath>
#include <cstddef>
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
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/search.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An edit that was kept, and the model's score on the samples that choose from then on.
struct greedy_step {
    edit what = {};
    double fraction = 0;
    score validation = {};
    index weight = 0;  ///< Which of the weights given.
};

struct greedy_result : search_record {
    std::vector<greedy_step> steps = {};  ///< The edits kept, in order; each strictly better than the one before.
    std::vector<search_candidate> candidates = {};  ///< All that were tried, in order.

    /// On the samples that choose, with all edits.
    [[nodiscard]] const score& best() const { return steps.empty() ? baseline : steps.back().validation; }
    /// The edits alone, for `apply_edits`.
    [[nodiscard]] std::vector<edit> edits() const {
        std::vector<edit> out;
        for (const auto& step : steps) {
            out.push_back(step.what);
        }
        return out;
    }
};

struct greedy_options {
    int passes = 1;   ///< Times the weights are visited; it ends earlier when a pass keeps nothing.
    index width = 1;  ///< Sets of edits followed at a time: 1 is greedy, more is a beam.
};

namespace detail {

/// A set of edits and what it scores.
struct edit_set {
    std::vector<greedy_step> steps = {};
    std::string text = {};  ///< The edits in words, as the journal has them.
    score validation = {};

    [[nodiscard]] bool edits(index weight) const {
        return std::any_of(steps.begin(), steps.end(), [&](const greedy_step& s) { return s.weight == weight; });
    }
};

/// Puts one set of edits after the other in place, and in the end none.
template <storage T>
class edits_in_place {
public:
    edits_in_place(const search_model<T>& model, search_session<T>& session)
        : model_(&model), session_(&session), placed_(model) {}

    [[nodiscard]] status put(const edit_set& set) {
        if (set.text == text_) {
            return {};
        }
        for (auto& [weight, guard] : guards_) {
            guard.restore();
        }
        placed_.restore();
        text_.clear();
        parameters_ = 0;
        removed_ = whole_ = 0;
        for (const auto& step : set.steps) {
            const auto& w = model_->weights[static_cast<std::size_t>(step.weight)];
            const auto editor = session_->editors().get(step.weight);  // the weight has its own bits here
            if (!editor) {
                return editor.error();
            }
            if (!model_->override_weight) {
                guards_.try_emplace(step.weight, w.weight);
            }
            const auto written = model_->override_weight ? placed_.put(step.weight, **editor, step.what)
                                                         : (*editor)->write(step.what, w.weight);
            if (!written) {
                return written.error();
            }
            parameters_ += written->parameters;
            removed_ += written->removed_norm * written->removed_norm;
            const double norm = (*editor)->whole().norm();
            whole_ += norm * norm;
        }
        text_ = set.text;
        return {};
    }

    /// Numbers in the factors of what the edits in place keep.
    [[nodiscard]] index parameters() const noexcept { return parameters_; }
    /// ||W - W'||_F / ||W||_F over all weights they edit; 0 for zero weights.
    [[nodiscard]] double relative_error() const { return whole_ > 0 ? std::sqrt(removed_ / whole_) : 0.0; }

    /// The lowest layer a set edits, or -1.
    [[nodiscard]] index first_layer(const edit_set& set) const {
        index first = -1;
        for (const auto& step : set.steps) {
            const index layer = model_->layer(step.weight);
            first = first < 0 ? layer : std::min(first, layer);
        }
        return first;
    }

private:
    const search_model<T>* model_;
    search_session<T>* session_;
    std::map<index, bits_guard<T>> guards_ = {};
    place_guard<T> placed_;
    std::string text_ = {};
    index parameters_ = 0;
    double removed_ = 0, whole_ = 0;  ///< Squared norms.
};

}  // namespace detail

/// Visits the weights in the order given. At each, tries every edit with those kept so far in place, and keeps the best
/// one if it is strictly better than the model so far; otherwise the weight gets its bits back. With more than one pass
/// the weights still unedited are visited again, until a pass keeps nothing. With a width above 1 the best few sets of
/// edits are followed, and the best of them at the end is the result.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; passes, width >= 1.
/// \return As `exhaustive_search`.
/// \cost   As `exhaustive_search` for each pass and each set followed. Memory: a copy of each edited weight, and
///         factor_bytes. An edit in layer l is judged from the lowest edited layer on: the last layer first is
///         cheapest.
/// \note   Deterministic if the evaluator is. The score on the choosing samples never falls from step to step.
template <storage T>
[[nodiscard]] greedy_result greedy_search(const search_model<T>& model, const search_options& options,
                                          const greedy_options& greedy = {}) {
    detail::expects(greedy.passes >= 1 && greedy.width >= 1, "greedy_search: passes and width must be at least 1");
    greedy_result out;
    detail::search_session<T> session("greedy_search", model, options, options.held_out.size() > 0 ? 3 : 1);
    const auto weights = static_cast<index>(model.weights.size());
    for (index w = 0; w < weights; ++w) {
        session.extend(greedy.passes * static_cast<index>(session.candidates_of(w).size()));
    }
    out.why = [&]() -> status {
        detail::edits_in_place<T> place(model, session);
        if (status why = session.begin(out.baseline); !why) {
            return why;
        }
        // Held-out samples of the unedited model first, while it is unedited.
        sample_scores before;
        if (options.held_out.size() > 0) {
            if (status why = session.proceed("held-out samples, before", true); !why) {
                return why;
            }
            auto scores = session.score_range(options.held_out, "", model.layers);
            if (!scores) {
                return scores.error();
            }
            before = *std::move(scores);
            out.held_out_before = out.held_out_after = summarize(before);
        }
        std::vector<detail::edit_set> sets = {{.validation = out.baseline}};
        const auto publish = [&] { out.steps = sets.front().steps; };
        bool improved = true;
        for (int pass = 0; pass < greedy.passes && improved; ++pass) {
            improved = false;
            for (index w = 0; w < weights; ++w) {
                std::vector<detail::edit_set> grown = sets;
                for (const auto& set : sets) {
                    if (set.edits(w)) {
                        continue;
                    }
                    if (status why = place.put(set); !why) {
                        return why;
                    }
                    const auto first = out.candidates.size();
                    const index layer = place.first_layer(set);
                    if (status why = detail::try_weight(session, session.candidates_of(w), options, set.text,
                                                        layer < 0 ? model.layer(w) : layer, out.candidates,
                                                        [](const search_candidate&, const sample_scores&) {});
                        !why) {
                        return why;
                    }
                    for (auto i = first; i < out.candidates.size(); ++i) {
                        const auto& c = out.candidates[i];
                        if (c.why && better(c.validation, set.validation)) {
                            grown.push_back(set);
                            grown.back().steps.push_back({c.what, c.fraction, c.validation, w});
                            grown.back().text += to_text(c.what) + "\t";
                            grown.back().validation = c.validation;
                        }
                    }
                }
                std::stable_sort(grown.begin(), grown.end(),
                                 [](const auto& a, const auto& b) { return better(a.validation, b.validation); });
                const auto last = std::unique(grown.begin(), grown.end(),
                                              [](const auto& a, const auto& b) { return a.text == b.text; });
                grown.erase(last, grown.end());
                grown.resize(std::min(grown.size(), static_cast<std::size_t>(greedy.width)));
                improved = improved || grown.front().text != sets.front().text;
                sets = std::move(grown);
                publish();
            }
        }
        if (options.held_out.size() > 0 && !out.steps.empty()) {
            if (status why = session.proceed("held-out samples, after", true); !why) {
                return why;
            }
            if (status why = place.put(sets.front()); !why) {
                return why;
            }
            const auto after =
                session.score_range(options.held_out, sets.front().text, place.first_layer(sets.front()));
            if (!after) {
                return after.error();
            }
            out.held_out_after = summarize(*after);
            out.evidence = compare_paired(before, *after, options.confidence);
        }
        (void)session.proceed("done", true);
        return {};
    }();
    session.count_into(out);
    return out;
}

/// The same for a model that is a list of weights and an evaluator.
template <storage T>
[[nodiscard]] greedy_result greedy_search(std::span<const named_weight<T>> weights, const evaluator& evaluate,
                                          const search_options& options, int passes = 1) {
    return greedy_search<T>(search_model<T>{.weights = {weights.begin(), weights.end()}, .evaluate = evaluate}, options,
                            {.passes = passes});
}
template <storage T>
[[nodiscard]] greedy_result greedy_search(const std::vector<named_weight<T>>& weights, const evaluator& evaluate,
                                          const search_options& options, int passes = 1) {
    return greedy_search<T>(std::span<const named_weight<T>>(weights), evaluate, options, passes);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GREEDY_SEARCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_GREEDY_SEARCH_HPP
#define LOWRANK_LASER_GREEDY_SEARCH_HPP

/// \file
/// Several truncations at once: weight by weight, each kept only if the model with all earlier ones becomes better.
///
///     std::reverse(weights.begin(), weights.end());              // the last layer first
///     auto r = lowrank::greedy_search<float>(weights, ask, {.validation = {0, 200}, .held_out = {200, 1000}});
///     if (r) auto done = lowrank::apply_edits<float>(weights, r.edits());
///
/// Gains of single edits do not add up, so each step is judged with the others in place. The composition of LASER
/// (Sharma, Ash, Misra, arXiv 2312.13558, section 5.1), with a strict rule and a real rollback at every step.

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/component_set.hpp>
#include <lowrank/laser/edit.hpp>
#include <lowrank/laser/edit_list.hpp>
#include <lowrank/laser/evaluation.hpp>
#include <lowrank/laser/evidence.hpp>
#include <lowrank/laser/search.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An edit that was kept, and the model's score on the samples that choose from then on.
struct greedy_step {
    edit what = {};
    double fraction = 0;
    score validation = {};
};

struct greedy_result {
    score baseline = {};                  ///< The unedited model on the samples that choose.
    std::vector<greedy_step> steps = {};  ///< The edits kept, in order; each strictly better than the one before.
    std::vector<search_candidate> candidates = {};  ///< All that were tried, in order.
    score held_out_before = {};                     ///< The unedited model on the samples that report,
    score held_out_after = {};                      ///< the model with all edits there,
    std::optional<paired_evidence> evidence = {};   ///< and how sure the difference is. None without an edit.
    index evaluated_samples = 0;                    ///< How many samples the evaluator has scored.
    status why = {};                                ///< Not ok: why the search ended early.

    explicit operator bool() const noexcept { return static_cast<bool>(why); }

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

/// Visits the weights in the order given. At each, tries every fraction with the edits kept so far in place, and keeps
/// the best one if it is strictly better than the model so far; otherwise the weight gets its bits back. With more
/// than one pass the weights still unedited are visited again, until a pass keeps nothing.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; passes >= 1.
/// \return As `exhaustive_search`.
/// \cost   As `exhaustive_search` for each pass. Memory: a copy of each edited weight and the current one's spectrum.
/// \note   Deterministic if the evaluator is. The score on the choosing samples never falls from step to step.
template <storage T>
[[nodiscard]] greedy_result greedy_search(std::span<const named_weight<T>> weights, const evaluator& ask,
                                          const search_options& options, int passes = 1) {
    detail::expects(passes >= 1, "greedy_search: passes must be at least 1");
    greedy_result out;
    const auto per_pass = static_cast<index>(weights.size() * options.fractions.size());
    detail::search_session session("greedy_search", ask, options,
                                   1 + passes * per_pass + (options.held_out.size() > 0 ? 2 : 0));
    std::vector<std::unique_ptr<detail::bits_guard<T>>> kept(weights.size());  // gives the bits back at the end
    std::string in_place;                                                      // the edits kept, in words
    const auto search = [&]() -> status {
        if (options.log != nullptr) {
            if (status why = options.log->begin(detail::search_fingerprint(weights)); !why) {
                return why;
            }
        }
        if (status why = session.proceed("the unedited model", false); !why) {
            return why;
        }
        const auto unedited = session.score(options.validation, "");
        if (!unedited) {
            return unedited.error();
        }
        out.baseline = summarize(*unedited);
        // Held-out samples of the unedited model first, while it is unedited.
        sample_scores before;
        if (options.held_out.size() > 0) {
            if (status why = session.proceed("held-out samples, before", true); !why) {
                return why;
            }
            auto scores = session.score(options.held_out, "");
            if (!scores) {
                return scores.error();
            }
            before = *std::move(scores);
            out.held_out_before = out.held_out_after = summarize(before);
        }
        bool improved = true;
        for (int pass = 0; pass < passes && improved; ++pass) {
            improved = false;
            for (std::size_t w = 0; w < weights.size(); ++w) {
                if (kept[w] != nullptr) {
                    continue;
                }
                const auto s = detail::spectrum_of("greedy_search", weights[w]);
                if (!s) {
                    return s.error();
                }
                const auto first = out.candidates.size();
                if (status why = detail::try_fractions<T>(weights[w], static_cast<index>(w), *s, options, in_place,
                                                          session, out.candidates);
                    !why) {
                    return why;
                }
                const search_candidate* best = nullptr;
                for (auto i = first; i < out.candidates.size(); ++i) {
                    const auto& c = out.candidates[i];
                    if (c.why && better(c.validation, best != nullptr ? best->validation : out.best())) {
                        best = &c;
                    }
                }
                if (best == nullptr) {
                    continue;
                }
                const auto keep = component_set::first(best->rank);
                kept[w] = std::make_unique<detail::bits_guard<T>>(weights[w].weight);
                (void)detail::write_components<T>(kept[w]->before(), *s, keep, weights[w].weight);
                out.steps.push_back({{weights[w].name, keep, s->size()}, best->fraction, best->validation});
                in_place += to_text(out.steps.back().what) + "\t";
                improved = true;
            }
        }
        if (options.held_out.size() > 0 && !out.steps.empty()) {
            if (status why = session.proceed("held-out samples, after", true); !why) {
                return why;
            }
            const auto after = session.score(options.held_out, in_place);
            if (!after) {
                return after.error();
            }
            out.held_out_after = summarize(*after);
            out.evidence = compare_paired(before, *after, options.confidence);
        }
        (void)session.proceed("done", true);
        return {};
    };
    out.why = search();
    out.evaluated_samples = session.evaluated();
    return out;
}

/// The same for a vector of weights.
template <storage T>
[[nodiscard]] greedy_result greedy_search(const std::vector<named_weight<T>>& weights, const evaluator& ask,
                                          const search_options& options, int passes = 1) {
    return greedy_search<T>(std::span<const named_weight<T>>(weights), ask, options, passes);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_GREEDY_SEARCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP

/// \file
/// All edits on a few samples, the better ones on more, the best on all: successive halving.
///
///     auto r = lowrank::halving_search(model, {.validation = {0, 400}, .held_out = {400, 2000}},
///                                      {.first_samples = 8, .factor = 4});
///
/// Every candidate of a round is judged on the same samples, so that only differences between candidates count, not how
/// hard the samples are: paired differences of log-probability need few samples. Half of the places of the next round
/// go to the candidates with the most right answers, half to those with the smallest mean log-loss.
/// Jamieson, Talwalkar: Non-stochastic best arm identification, arXiv 1502.07943.

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct halving_options {
    index first_samples = 8;  ///< Of those that choose, in the first round.
    index factor = 4;         ///< Each round has so many times the samples and one part in so many of the candidates.
    index finalists = 4;      ///< When no more are left, they are judged on all samples that choose.
};

namespace detail {

inline void expects_halving(const halving_options& o) {
    expects(o.first_samples >= 1 && o.factor >= 2 && o.finalists >= 1,
            "halving: first_samples and finalists must be at least 1, factor at least 2");
}

/// The `count` most promising of the candidates named in `alive`, in the order of `alive`: taken in turn from those
/// with the most right answers (ties by log-loss) and those with the smallest log-loss.
inline std::vector<std::size_t> most_promising(const std::vector<search_candidate>& candidates,
                                               const std::vector<std::size_t>& alive, std::size_t count) {
    auto by_right = alive, by_loss = alive;
    std::stable_sort(by_right.begin(), by_right.end(), [&](std::size_t a, std::size_t b) {
        return better(candidates[a].validation, candidates[b].validation);
    });
    std::stable_sort(by_loss.begin(), by_loss.end(), [&](std::size_t a, std::size_t b) {
        return candidates[a].validation.log_loss < candidates[b].validation.log_loss;
    });
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < alive.size() && kept.size() < count; ++i) {
        for (const auto at : {by_right[i], by_loss[i]}) {
            if (kept.size() < count && std::find(kept.begin(), kept.end(), at) == kept.end()) {
                kept.push_back(at);
            }
        }
    }
    std::sort(kept.begin(), kept.end());
    return kept;
}

/// The race: `candidates` come in with their edits and leave with their scores, on as many samples as they were worth.
/// `scores[i]` are those of candidate i.
template <storage T>
[[nodiscard]] status race(search_session<T>& session, const search_options& options, const halving_options& halving,
                          std::vector<search_candidate>& candidates, std::vector<sample_scores>& scores) {
    const index all = options.validation.size();
    scores.assign(candidates.size(), {});
    std::vector<std::size_t> alive;  // the first of each distinct edit
    std::vector<std::size_t> same(candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        same[i] = i;
        for (const auto earlier : alive) {
            same[i] = candidates[earlier].what == candidates[i].what ? earlier : same[i];
        }
        if (same[i] == i) {
            alive.push_back(i);
        }
    }
    index samples = 0;
    while (samples < all && !alive.empty()) {
        const bool last = static_cast<index>(alive.size()) <= halving.finalists;
        const index from = samples;
        samples = last ? all : std::min(all, samples == 0 ? halving.first_samples : samples * halving.factor);
        session.extend(static_cast<index>(alive.size()));
        const sample_range range{options.validation.begin + from, options.validation.begin + samples};
        index foreseen = -1;
        for (const auto i : alive) {
            auto& c = candidates[i];
            if (c.weight != foreseen) {
                foreseen = c.weight;
                std::vector<search_candidate> together;  // candidates come weight by weight
                for (const auto j : alive) {
                    if (candidates[j].weight == foreseen) {
                        together.push_back(candidates[j]);
                    }
                }
                if (status why = session.prefetch_scores(together, range); !why) {
                    return why;
                }
            }
            if (status why = session.proceed(c.what.weight, true); !why) {
                return why;
            }
            auto more = session.try_edit(c, range);
            if (!more) {
                return more.error();
            }
            for (index k = 0; c.why && k < more->size(); ++k) {
                const auto at = static_cast<std::size_t>(k);
                scores[i].add(more->correct[at] != 0, more->log_loss[at]);
            }
            c.validation = summarize(scores[i]);
        }
        std::erase_if(alive, [&](std::size_t i) { return !candidates[i].why; });
        if (samples < all) {
            const auto keep = std::max<std::size_t>(alive.size() / static_cast<std::size_t>(halving.factor),
                                                    static_cast<std::size_t>(halving.finalists));
            alive = most_promising(candidates, alive, keep);
        }
    }
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        if (same[i] != i) {
            const double fraction = candidates[i].fraction;
            candidates[i] = candidates[same[i]];
            candidates[i].fraction = fraction;
        }
    }
    return {};
}

}  // namespace detail

/// The best edit of all weights and fractions by successive halving. The candidates that reach the last round are
/// judged as in `exhaustive_search`; the others carry the score of the round in which they fell out, on its fewer
/// samples.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; first_samples, finalists >= 1, factor >= 2.
/// \return As `exhaustive_search`.
/// \cost   With c candidates and a first round of n samples about c n (1 + log(N / n) / log(factor)) sample evaluations
///         instead of c N, and the finalists' N.
/// \note   Deterministic if the evaluator is. The order of the samples should be random: the first ones stand for all.
template <storage T>
[[nodiscard]] search_result<compute_t<T>> halving_search(const search_model<T>& model, const search_options& options,
                                                         const halving_options& halving = {}) {
    detail::expects_halving(halving);
    search_result<compute_t<T>> out;
    detail::search_session<T> session("halving_search", model, options, options.held_out.size() > 0 ? 3 : 1);
    std::vector<sample_scores> scores;
    out.why = [&]() -> status {
        if (status why = session.begin(out.baseline); !why) {
            return why;
        }
        for (index w = 0; w < static_cast<index>(model.weights.size()); ++w) {
            const auto more = session.candidates_of(w);
            out.candidates.insert(out.candidates.end(), more.begin(), more.end());
        }
        if (status why = detail::race(session, options, halving, out.candidates, scores); !why) {
            return why;
        }
        return session.finish(out, [&](std::size_t i) -> const sample_scores& { return scores[i]; });
    }();
    session.count_into(out);
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP

/// \file
/// All edits on a few samples, the better ones on more, the best on all: successive halving.
///
///     auto found = lowrank::halving_search(model, {.validation = {0, 400}, .held_out = {400, 2000}});
///     auto fixed = lowrank::halving_search(model, {.validation = {0, 400}}, {.first_samples = 8, .factor = 4});
///     if (!fixed.warning.empty()) std::puts(fixed.warning.c_str());     // 8 samples could not tell the edits apart
///
/// Every candidate of a round is scored on the same samples, so that only differences between candidates count, not how
/// hard the samples are: paired differences of log-probability need few samples. Half of the next round's candidates
/// are those with the most right answers, half those with the smallest mean log-loss.
/// Jamieson, Talwalkar: Non-stochastic best arm identification, arXiv 1502.07943.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct halving_options {
    /// Validation samples of the first round. Without a number it starts with 8 and doubles them until they tell the
    /// candidates apart: a window of tokens says much, a right or wrong answer little.
    std::optional<index> first_samples = {};
    index factor = 4;     ///< Each round has so many times the samples and one part in so many of the candidates.
    index finalists = 4;  ///< When no more are left, they are scored on all validation samples.
};

namespace detail {

inline void expects_halving(const halving_options& o) {
    expects(o.first_samples.value_or(1) >= 1 && o.factor >= 2 && o.finalists >= 1,
            "halving: first_samples and finalists must be at least 1, factor at least 2");
}

/// What a round says about its candidates. Compared are the best and the median candidate, sample by sample: their
/// right answers if the candidates differ in any, otherwise their losses. By chance alone the best of c equal
/// candidates would show `expected_max_of_normals(c)` standard errors; less than 2 are never enough.
inline search_round round_of(const std::vector<search_candidate>& candidates, const std::vector<sample_scores>& scores,
                             std::vector<std::size_t> alive) {
    const auto count = static_cast<index>(alive.size());
    search_round round{.candidates = count,
                       .by_chance = std::max(2.0, expected_max_of_normals(std::max<index>(count, 1)))};
    if (alive.size() < 2) {
        return round;
    }
    std::stable_sort(alive.begin(), alive.end(), [&](std::size_t a, std::size_t b) {
        return better(candidates[a].validation, candidates[b].validation);
    });
    const sample_scores &best = scores[alive.front()], &median = scores[alive[alive.size() / 2]];
    round.samples = best.size();
    const bool answers =
        std::any_of(alive.begin(), alive.end(), [&](std::size_t i) { return scores[i].correct != best.correct; });
    const auto gain = [&](std::size_t i) {
        return answers ? static_cast<double>(best.correct[i]) - static_cast<double>(median.correct[i])
                       : median.log_loss[i] - best.log_loss[i];
    };
    const double n = static_cast<double>(round.samples);
    double mean = 0, squares = 0;
    for (std::size_t i = 0; i < best.correct.size(); ++i) {
        mean += gain(i) / n;
    }
    for (std::size_t i = 0; i < best.correct.size(); ++i) {
        squares += (gain(i) - mean) * (gain(i) - mean);
    }
    const double error = round.samples > 1 ? std::sqrt(squares / (n - 1) / n) : HUGE_VAL;
    round.separation = mean > 0 ? mean / error : 0.0;  // without spread: infinite
    return round;
}

/// The candidates named in `alive`, the most promising first: in turn the one with the most right answers (ties by
/// log-loss) and the one with the smallest log-loss.
inline std::vector<std::size_t> in_turn(const std::vector<search_candidate>& candidates,
                                        const std::vector<std::size_t>& alive) {
    auto by_right = alive, by_loss = alive;
    std::stable_sort(by_right.begin(), by_right.end(), [&](std::size_t a, std::size_t b) {
        return better(candidates[a].validation, candidates[b].validation);
    });
    std::stable_sort(by_loss.begin(), by_loss.end(), [&](std::size_t a, std::size_t b) {
        return candidates[a].validation.log_loss < candidates[b].validation.log_loss;
    });
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < alive.size(); ++i) {
        for (const auto at : {by_right[i], by_loss[i]}) {
            if (std::find(out.begin(), out.end(), at) == out.end()) {
                out.push_back(at);
            }
        }
    }
    return out;
}

/// The first `count` of them, in the order of `alive`.
inline std::vector<std::size_t> most_promising(const std::vector<search_candidate>& candidates,
                                               const std::vector<std::size_t>& alive, std::size_t count) {
    auto kept = in_turn(candidates, alive);
    kept.resize(std::min(kept.size(), count));
    std::sort(kept.begin(), kept.end());
    return kept;
}

/// The race: the candidates of the result come in with their edits and leave with their scores, those dropped early on
/// fewer samples; those scored on all are judged.
template <storage T>
[[nodiscard]] status race(search_session<T>& session, const halving_options& halving, search_result& out) {
    const sample_range validation = session.options().validation;
    const index all = validation.size();
    auto& candidates = out.candidates;
    std::vector<sample_scores> scores(candidates.size());
    std::vector<std::size_t> alive;  // the first of each distinct edit
    std::vector<std::size_t> same(candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        same[i] = i;
        for (const auto earlier : alive) {
            same[i] = same_edits(candidates[earlier].edits, candidates[i].edits) ? earlier : same[i];
        }
        if (same[i] == i) {
            alive.push_back(i);
        }
    }
    index samples = 0, next = halving.first_samples.value_or(8);
    bool dropped = false;
    while (samples < all && !alive.empty()) {
        const index from = samples;
        samples = static_cast<index>(alive.size()) <= halving.finalists ? all : std::min(all, next);
        const sample_range range{validation.begin + from, validation.begin + samples};
        session.extend(alive.size());
        index prefetched = -1;
        for (const auto i : alive) {
            auto& c = candidates[i];
            if (c.newest().weight != prefetched) {
                prefetched = c.newest().weight;
                std::vector<search_candidate> together;  // candidates come weight by weight
                for (const auto j : alive) {
                    if (candidates[j].newest().weight == prefetched) {
                        together.push_back(candidates[j]);
                    }
                }
                if (status why = session.prefetch_scores(together, range); !why) {
                    return why;
                }
            }
            if (status why = session.proceed(c.name); !why) {
                return why;
            }
            const auto more = session.evaluate(c, range);
            if (!more) {
                return more.error();
            }
            if (c.why) {
                scores[i].append(*more);
            }
            c.validation = summarize(scores[i]);
        }
        std::erase_if(alive, [&](std::size_t i) { return !candidates[i].why; });
        if (samples == all) {
            break;
        }
        const auto round = round_of(candidates, scores, alive);
        out.rounds.push_back(round);
        if (const bool apart = round.separation >= round.by_chance; !apart && !dropped) {
            if (!halving.first_samples) {
                next = 2 * samples;
                continue;
            }
            out.warning = "the first round's " + std::to_string(samples) + " samples do not tell its " +
                          std::to_string(round.candidates) +
                          " candidates apart; give it more first_samples, or none to let it choose their number";
        }
        const auto keep = std::max(alive.size() / static_cast<std::size_t>(halving.factor),
                                   static_cast<std::size_t>(halving.finalists));
        dropped = true;
        next = samples * halving.factor;
        alive = most_promising(candidates, alive, keep);
    }
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        if (same[i] != i) {
            const double fraction = candidates[i].newest().fraction;
            candidates[i] = candidates[same[i]];
            candidates[i].edits.back().fraction = fraction;
        } else if (candidates[i].why && candidates[i].validation.samples == all) {
            session.judge(out, i, std::move(scores[i]));
        }
    }
    return {};
}

}  // namespace detail

/// The best edit of all weights and fractions by successive halving. The candidates that reach the last round are
/// judged as in `exhaustive_search`; the others carry the score of the round in which they were dropped, on its fewer
/// samples. `rounds` of the result says how well each round separated its candidates, `warning` if the first could
/// not.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `exhaustive_search`; first_samples, finalists >= 1, factor >= 2.
/// \return As `exhaustive_search`.
/// \cost   With c candidates and a first round of n samples about c n (1 + log(N / n) / log(factor)) sample evaluations
///         instead of c N, and the finalists' N.
/// \note   Deterministic if the evaluator is. The order of the samples should be random: the first ones stand for all.
template <storage T>
[[nodiscard]] search_result halving_search(const search_model<T>& model, const search_options& options,
                                           const halving_options& halving = {}) {
    detail::expects_halving(halving);
    detail::search_session<T> session("halving_search", model, options);
    return session.run([&](search_result& out) {
        for (index w = 0; w < static_cast<index>(model.weights.size()); ++w) {
            const auto more = session.candidates(w);
            out.candidates.insert(out.candidates.end(), more.begin(), more.end());
        }
        return detail::race(session, halving, out);
    });
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_HALVING_SEARCH_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_HALVING_SEARCH_IPP
#define LOWRANK_LASER_SEARCH_HALVING_SEARCH_IPP

#include <lowrank/laser/search/halving_search.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <lowrank/laser/evidence/evidence.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY void expects_halving(const halving_options& o) {
    expects(o.first_samples.value_or(1) >= 1 && o.factor >= 2 && o.finalists >= 1,
            "halving: first_samples and finalists must be at least 1, factor at least 2");
}

LOWRANK_BODY search_round round_of(const std::vector<search_candidate>& candidates,
                                   const std::vector<sample_scores>& scores, std::vector<std::size_t> alive) {
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

LOWRANK_BODY std::vector<std::size_t> in_turn(const std::vector<search_candidate>& candidates,
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

LOWRANK_BODY std::vector<std::size_t> most_promising(const std::vector<search_candidate>& candidates,
                                                     const std::vector<std::size_t>& alive, std::size_t count) {
    auto kept = in_turn(candidates, alive);
    kept.resize(std::min(kept.size(), count));
    std::sort(kept.begin(), kept.end());
    return kept;
}

LOWRANK_BODY status race(search_session& session, const halving_options& halving, search_result& out) {
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

LOWRANK_BODY search_result run_halving(searched_model& model, const search_options& options,
                                       const halving_options& halving) {
    expects_halving(halving);
    search_session session("halving_search", model, options);
    return session.run([&](search_result& out) {
        for (index w = 0; w < static_cast<index>(model.weights.size()); ++w) {
            const auto more = session.candidates(w);
            out.candidates.insert(out.candidates.end(), more.begin(), more.end());
        }
        return race(session, halving, out);
    });
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_HALVING_SEARCH_IPP

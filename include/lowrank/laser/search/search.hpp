// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_SEARCH_HPP

/// \file
/// Which matrix, reduced to which rank, makes the model better: try all, choose on some samples, report on others.
///
///     std::vector<lowrank::named_weight<float>> weights = {{"mlp.up_proj.weight", up}, {"mlp.down_proj.weight",
///     down}}; auto r = lowrank::exhaustive_search<float>(weights, evaluate, {.validation = {0, 200}, .held_out = {200,
///     1000}}); if (r && r.winner) (void)lowrank::apply_edit<float>(r.winning_weight(weights), *r.best_spectrum,
///     r.best_edit.keep);
///
/// LASER's search (Sharma, Ash, Misra, arXiv 2312.13558, sections 4 and 5) with the exact truncation, one
/// factorization per matrix for all ranks, and the held-out samples evaluated for the winner only. Searches that look
/// at less are in halving_search.hpp and gradient_search.hpp.

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Looks for the largest of n values that rise, then fall, by golden section on whole numbers. `better_at(i, j)` says
/// whether value i is larger than value j; it is asked about all points the outcome rests on.
template <class F>
void golden_section(index n, F&& better_at) {
    index low = 0, high = n - 1;  // the largest lies in [low, high]
    while (high - low > 2) {
        const auto step = std::max<index>(1, static_cast<index>(0.381966 * static_cast<double>(high - low) + 0.5));
        const index a = low + step, b = std::max(a + 1, high - step);
        if (better_at(b, a)) {
            low = a + 1;
        } else {
            high = b - 1;
        }
    }
    for (index i = low; i < high; ++i) {
        (void)better_at(i, i + 1);
    }
}

/// Tries edits of one weight on the samples that choose, all or by golden section over the fractions of each grouping,
/// and appends those that were tried. `keep(candidate, scores)` sees each.
template <storage T, class F>
[[nodiscard]] status try_weight(search_session<T>& session, std::vector<search_candidate> wanted,
                                const search_options& options, const std::string& others, index first,
                                std::vector<search_candidate>& out, F&& keep) {
    const auto from = out.size();
    status why = {};
    // The candidate at `place` of `wanted`, tried now or found among those tried; -1 after a failure.
    const auto tried = [&](std::size_t place) -> std::ptrdiff_t {
        search_candidate c = wanted[place];
        std::ptrdiff_t same = -1;
        for (std::size_t i = from; i < out.size(); ++i) {
            if (out[i].what == c.what && out[i].fraction == c.fraction) {
                return static_cast<std::ptrdiff_t>(i);
            }
            same = out[i].what == c.what ? static_cast<std::ptrdiff_t>(i) : same;
        }
        if (why = session.proceed(c.what.weight, true); !why) {
            return -1;
        }
        if (same >= 0) {
            const double fraction = c.fraction;
            c = out[static_cast<std::size_t>(same)];
            c.fraction = fraction;
        } else {
            auto scores = session.try_edit(c, options.validation, others, first);
            if (!scores) {
                why = scores.error();
                return -1;
            }
            if (c.why) {
                c.validation = summarize(*scores);
                keep(c, *std::move(scores));
            }
        }
        out.push_back(std::move(c));
        return static_cast<std::ptrdiff_t>(out.size()) - 1;
    };
    const auto better_at = [&](std::size_t a, std::size_t b) {
        const auto i = tried(a), j = why ? tried(b) : -1;
        if (i < 0 || j < 0) {
            return false;
        }
        const auto &x = out[static_cast<std::size_t>(i)], &y = out[static_cast<std::size_t>(j)];
        return x.why && (!y.why || better(x.validation, y.validation));
    };
    if (!options.unimodal) {
        if (status failed = session.prefetch_scores(wanted, options.validation, others, first); !failed) {
            return failed;
        }
    }
    std::size_t run = 1;
    for (std::size_t begin = 0; begin < wanted.size() && why; begin += run) {
        const auto left = wanted.size() - begin;
        const auto all = wanted[begin].what.entries ? options.densities.size() : options.fractions.size();
        run = options.unimodal ? std::min(all, left) : 1;
        if (run <= 2) {
            for (std::size_t i = begin; i < begin + run && why; ++i) {
                (void)tried(i);
            }
            continue;
        }
        // The fractions in falling order, as the curve over them is unimodal.
        std::vector<std::size_t> order(run);
        std::iota(order.begin(), order.end(), begin);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return wanted[a].fraction > wanted[b].fraction; });
        golden_section(static_cast<index>(run), [&](index a, index b) {
            return why && better_at(order[static_cast<std::size_t>(a)], order[static_cast<std::size_t>(b)]);
        });
    }
    return why;
}

}  // namespace detail

/// Tries every weight at every fraction, one at a time, and keeps the strictly best on the validation samples: more
/// right, or as many right and a smaller log-loss. The unedited model is a candidate and wins ties; among equal
/// candidates the first wins.
///
/// Each weight is factorized once; fractions that mean the same rank are evaluated once. When the search returns, for
/// whatever reason, every weight has the bits it had.
///
/// \pre    fractions in [0, 1]; both ranges valid and disjoint, `validation` not empty.
/// \return `cancelled` if the callback says so (candidates tried so far are listed), `non_finite` if a weight or the
///         unedited model's loss is not finite, or the status the evaluator gave.
/// \cost   one spectrum per weight; one pass over the validation samples per distinct (weight, rank) and one for the
///         unedited model; two over the held-out samples. Memory: factor_bytes of the options, or one weight and its
///         spectrum if that is more.
/// \note   Deterministic if the evaluator is, with or without an executor.
template <storage T>
[[nodiscard]] search_result<compute_t<T>> exhaustive_search(const search_model<T>& model,
                                                            const search_options& options) {
    search_result<compute_t<T>> out;
    index steps = 1 + (options.held_out.size() > 0 ? 2 : 0);
    detail::search_session<T> session("exhaustive_search", model, options, steps);
    const auto weights = static_cast<index>(model.weights.size());
    for (index w = 0; w < weights; ++w) {
        session.extend(static_cast<index>(session.candidates_of(w).size()));
    }
    out.why = [&]() -> status {
        if (status why = session.begin(out.baseline); !why) {
            return why;
        }
        score best = out.baseline;
        sample_scores best_scores;
        for (index w = 0; w < weights; ++w) {
            const auto editor = session.editors().get(w);
            if (!editor) {
                return {editor.error().code, "exhaustive_search: " + editor.error().message};
            }
            if (status why =
                    detail::try_weight(session, session.candidates_of(w), options, "", model.layer(w), out.candidates,
                                       [&](const search_candidate& c, sample_scores scores) {
                                           if (better(c.validation, best)) {
                                               best = c.validation;
                                               best_scores = std::move(scores);
                                           }
                                       });
                !why) {
                return why;
            }
        }
        return session.finish(out, [&](std::size_t) -> const sample_scores& { return best_scores; });
    }();
    session.count_into(out);
    return out;
}

/// The same for a model that is a list of weights and an evaluator.
template <storage T>
[[nodiscard]] search_result<compute_t<T>> exhaustive_search(std::span<const named_weight<T>> weights,
                                                            const evaluator& evaluate, const search_options& options) {
    return exhaustive_search<T>(search_model<T>{.weights = {weights.begin(), weights.end()}, .evaluate = evaluate},
                                options);
}
template <storage T>
[[nodiscard]] search_result<compute_t<T>> exhaustive_search(const std::vector<named_weight<T>>& weights,
                                                            const evaluator& evaluate, const search_options& options) {
    return exhaustive_search<T>(std::span<const named_weight<T>>(weights), evaluate, options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_SEARCH_HPP

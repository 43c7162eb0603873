// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_GRADIENT_SEARCH_HPP
#define LOWRANK_LASER_GRADIENT_SEARCH_HPP

/// \file
/// One backward pass says which matrices are worth a look; only those are tried.
///
///     auto r = lowrank::gradient_search(model, {.validation = {0, 400}, .held_out = {400, 2000}}, {.matrices = 3});
///     r.scores[0].loss_change(5);                // predicted change of the mean loss: matrix 0 at rank 5
///
/// Sreeram, Maalouf, Sharma, Rus: Compress to Impress, arXiv 2510.20800: gradients of the singular values on 100
/// samples rank the matrices, and the top ones are scanned, whole and cut into blocks of rows (`groups` of the
/// options). The derivation of the gradients is in sigma_gradient.hpp; how the paper turns them into one score is not
/// published, so that the policy is an option here.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/laser/detail/search_session.hpp>
#include <lowrank/laser/halving_search.hpp>
#include <lowrank/laser/search_model.hpp>
#include <lowrank/laser/search_options.hpp>
#include <lowrank/laser/sigma_gradient.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct gradient_options {
    index samples = 100;  ///< The first of those that choose; the backward pass sees them.
    screening_policy policy = screening_policy::best_tail;
    index matrices = 5;         ///< So many of the best matrices are scanned.
    halving_options scan = {};  ///< How: first_samples of all samples that choose means every candidate on all of them.
};

template <real S>
struct gradient_search_result : search_result<S> {
    std::vector<sigma_scores> scores = {};  ///< Of each weight, in the order given.
    std::vector<index> order = {};          ///< The weights, the most promising first.
};

namespace detail {

/// The gradients of the singular values of every weight of a model on some samples, by its `gradients` hook.
///
/// \pre    the model has the hook; the range is not empty.
/// \return What the hook and `make_spectrum` say.
/// \cost   A backward pass, and one spectrum per weight. Weights whose factorizations do not fit `factor_bytes`
/// together
///         are worked on in turn, with a backward pass for each turn.
template <storage T>
[[nodiscard]] result<std::vector<sigma_scores>> sigma_gradients(const search_model<T>& model, sample_range range,
                                                                search_session<T>& session, std::size_t factor_bytes) {
    using S = compute_t<T>;
    expects(static_cast<bool>(model.gradients), "sigma_gradients: the model has no hook for gradients");
    const auto count = static_cast<index>(model.weights.size());
    std::vector<sigma_scores> out(model.weights.size());
    workspace ws;
    for (index first = 0; first < count;) {
        index last = first;
        for (std::size_t bytes = 0; last < count; ++last) {
            bytes += session.editors().bytes_of(last);
            if (bytes > factor_bytes && last > first) {
                break;
            }
        }
        std::vector<sigma_gradient<S>> sums;
        for (index w = first; w < last; ++w) {
            const auto editor = session.editors().get(w);
            if (!editor) {
                return editor.error();
            }
            sums.emplace_back((*editor)->whole());
        }
        status why = model.gradients(
            range, [&](index w, const_column_view<S> x, const_column_view<S> dy, std::span<const index> starts) {
                if (w >= first && w < last) {
                    sums[static_cast<std::size_t>(w - first)].add(x, dy, starts, ws);
                }
            });
        if (!why) {
            return why;
        }
        session.count(range.size(), 3 * model.layers);  // a forward pass, and a backward pass of twice its cost
        for (index w = first; w < last; ++w) {
            out[static_cast<std::size_t>(w)] = sums[static_cast<std::size_t>(w - first)].scores();
        }
        first = last;
    }
    return out;
}

}  // namespace detail

/// The best edit among those of the matrices that the gradient recommends, judged as in `halving_search`.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `halving_search`; the model has the `gradients` hook; samples, matrices >= 1.
/// \return As `halving_search`, with the gradients' scores. Each candidate of a whole matrix that was tried carries its
///         predicted change.
/// \cost   A backward pass on `samples`, one spectrum per weight, and a race among matrices * fractions candidates.
/// \note   Deterministic if the model's hooks are. The backward pass is not in the journal: a resumed search repeats
/// it.
template <storage T>
[[nodiscard]] gradient_search_result<compute_t<T>> gradient_search(const search_model<T>& model,
                                                                   const search_options& options,
                                                                   const gradient_options& gradient = {}) {
    detail::expects_halving(gradient.scan);
    detail::expects(gradient.samples >= 1 && gradient.matrices >= 1,
                    "gradient_search: samples and matrices must be at least 1");
    detail::expects(static_cast<bool>(model.gradients), "gradient_search: the model has no hook for gradients");
    gradient_search_result<compute_t<T>> out;
    detail::search_session<T> session("gradient_search", model, options, options.held_out.size() > 0 ? 4 : 2);
    std::vector<sample_scores> scores;
    out.why = [&]() -> status {
        if (status why = session.begin(out.baseline); !why) {
            return why;
        }
        if (status why = session.proceed("gradients", true); !why) {
            return why;
        }
        const index begin = options.validation.begin;
        auto made = detail::sigma_gradients(model, {begin, std::min(options.validation.end, begin + gradient.samples)},
                                            session, options.factor_bytes);
        if (!made) {
            return {made.error().code, "gradient_search: " + made.error().message};
        }
        out.scores = *std::move(made);
        out.order = screen(out.scores, gradient.policy);
        std::vector<index> chosen(
            out.order.begin(), out.order.begin() + std::min<std::ptrdiff_t>(gradient.matrices, std::ssize(out.order)));
        std::sort(chosen.begin(), chosen.end());
        for (const index w : chosen) {
            for (auto& c : session.candidates_of(w)) {
                if (c.what.groups == 1) {
                    c.predicted = out.scores[static_cast<std::size_t>(w)].loss_change(c.rank);
                }
                out.candidates.push_back(std::move(c));
            }
        }
        if (status why = detail::race(session, options, gradient.scan, out.candidates, scores); !why) {
            return why;
        }
        return session.finish(out, [&](std::size_t i) -> const sample_scores& { return scores[i]; });
    }();
    session.count_into(out);
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_GRADIENT_SEARCH_HPP

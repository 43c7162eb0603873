// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_HPP

/// \file
/// One backward pass says which matrices are promising; only those are tried.
///
///     const lowrank::search_options how{.validation = {0, 400}, .held_out = {400, 2000}};
///     auto found = lowrank::gradient_search(model, how, {.matrices = 3});
///     log(found.scores[0].loss_change(5));       // predicted change of the mean loss: matrix 0 at rank 5
///
/// Sreeram, Maalouf, Sharma, Rus: Compress to Impress, arXiv 2510.20800: gradients of the singular values on 100
/// samples rank the matrices, and the top ones are scanned, whole and cut into blocks of rows (`groups` of the
/// options). The derivation of the gradients is in sigma_gradient.hpp; how the paper turns them into one score is not
/// published, so that the policy is an option here. With `probed` the gradient's ranking is corrected by a measurement
/// on a few samples.

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct gradient_options {
    index samples = 100;  ///< The backward pass sees so many of the validation samples, the first ones.
    screening_policy policy = screening_policy::trusted_tail;
    index matrices = 5;  ///< So many of the best matrices are scanned.
    /// Before that, the edits of so many of the best matrices are tried on the first `probe_samples`, and what they
    /// measure decides which matrices are scanned; 0: the gradient alone decides. A gradient sees the neighbourhood of
    /// the weights, and the best truncations often lie far outside it.
    index probed = 0;
    index probe_samples = 4;
    halving_options scan = {};  ///< How the candidates of the chosen matrices are compared.
};

namespace detail {

/// The gradients of the singular values of every weight of a model on some samples, by its `gradients` hook.
///
/// \pre    the model has the hook; the range is not empty.
/// \return What the hook and `svd` say.
/// \cost   A backward pass, and one spectrum per weight. Weights whose factorizations do not fit `factor_bytes` together
///         are worked on in turn, with a backward pass for each turn.
template <storage T>
[[nodiscard]] result<std::vector<sigma_scores>> sigma_gradients(search_session<T>& session, sample_range range) {
    using S = compute_t<T>;
    const search_model<T>& model = session.model();
    const auto count = static_cast<index>(model.weights.size());
    std::vector<sigma_scores> out(model.weights.size());
    workspace ws;
    for (index first = 0; first < count;) {
        index last = first;
        for (std::size_t bytes = 0; last < count; ++last) {
            bytes += session.editors().bytes_of(last);
            if (bytes > session.options().factor_bytes && last > first) {
                break;
            }
        }
        std::vector<sigma_gradient<S>> sums;
        for (index w = first; w < last; ++w) {
            const auto editor = session.editors().get(w);
            if (!editor) {
                return editor.error();
            }
            const auto& factors = (*editor)->whole();
            if (!factors) {
                return factors.why;
            }
            sums.emplace_back(factors);
        }
        status refused;
        status why = model.gradients(
            range, [&](index w, const_column_view<S> x, const_column_view<S> dy, std::span<const index> starts) {
                if (w >= first && w < last) {
                    status added = sums[static_cast<std::size_t>(w - first)].add(x, dy, starts, ws);
                    if (!added && refused) {
                        refused = {added.code, model.weights[static_cast<std::size_t>(w)].name + ": " + added.message};
                    }
                }
            });
        if (!why || !refused) {
            return why ? refused : why;
        }
        session.count(range.size(), 3 * model.layers);  // a forward pass, and a backward pass of twice its cost
        for (index w = first; w < last; ++w) {
            out[static_cast<std::size_t>(w)] = sums[static_cast<std::size_t>(w - first)].scores();
        }
        first = last;
    }
    return out;
}

/// Tries the edits of the first `gradient.probed` weights of `order` on a few samples and sorts these weights by their
/// best edit: in turn the one with the most right answers and the one with the smallest mean log-loss.
template <storage T>
[[nodiscard]] status probe(search_session<T>& session, const gradient_options& gradient, std::vector<index>& order) {
    const auto probed = static_cast<std::size_t>(std::min<std::ptrdiff_t>(gradient.probed, std::ssize(order)));
    const sample_range validation = session.options().validation;
    const sample_range few{validation.begin, std::min(validation.end, validation.begin + gradient.probe_samples)};
    std::vector<search_candidate> tried;
    for (std::size_t i = 0; i < probed; ++i) {
        auto wanted = session.candidates(order[i]);
        session.extend(wanted.size());
        if (status why = session.prefetch_scores(wanted, few); !why) {
            return why;
        }
        for (auto c = wanted.begin(); c != wanted.end(); ++c) {
            if (status why = session.proceed(c->name); !why) {
                return why;
            }
            if (std::any_of(wanted.begin(), c,
                            [&](const auto& earlier) { return same_edits(earlier.edits, c->edits); })) {
                continue;
            }
            const auto scores = session.evaluate(*c, few);
            if (!scores) {
                return scores.error();
            }
            if (c->why) {
                c->validation = summarize(*scores);
                tried.push_back(*c);
            }
        }
    }
    std::vector<std::size_t> all(tried.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::vector<index> sorted;
    const auto add = [&](index w) {
        if (std::find(sorted.begin(), sorted.end(), w) == sorted.end()) {
            sorted.push_back(w);
        }
    };
    for (const std::size_t i : in_turn(tried, all)) {
        add(tried[i].newest().weight);
    }
    for (const index w : order) {  // weights without an edit that could be scored, and those not probed
        add(w);
    }
    order = std::move(sorted);
    return {};
}

}  // namespace detail

/// The best edit among those of the matrices that the gradient recommends, judged as in `halving_search`.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `halving_search`; the model has the `gradients` hook; samples, matrices >= 1.
/// \return As `halving_search`, with `scores` and `order`: the weights by the gradient, the probed ones as measured.
///         Each candidate of a whole matrix that was tried has its predicted change.
/// \cost   A backward pass on `samples`, one spectrum per weight, probed * fractions * probe_samples evaluations, and a
///         race among matrices * fractions candidates.
/// \note   Deterministic if the model's hooks are. The journal does not hold the backward pass: a resumed search
///         repeats it.
template <storage T>
[[nodiscard]] search_result gradient_search(const search_model<T>& model, const search_options& options,
                                            const gradient_options& gradient = {}) {
    detail::expects_halving(gradient.scan);
    detail::expects(gradient.samples >= 1 && gradient.matrices >= 1,
                    "gradient_search: samples and matrices must be at least 1");
    detail::expects(gradient.probed >= 0 && gradient.probe_samples >= 1,
                    "gradient_search: probed must not be negative, probe_samples at least 1");
    detail::expects(static_cast<bool>(model.gradients), "gradient_search: the model has no hook for gradients");
    detail::search_session<T> session("gradient_search", model, options);
    session.extend(1);
    return session.run([&](search_result& out) -> status {
        if (status why = session.proceed("gradients"); !why) {
            return why;
        }
        const index begin = options.validation.begin;
        auto made =
            detail::sigma_gradients(session, {begin, std::min(options.validation.end, begin + gradient.samples)});
        if (!made) {
            return {made.error().code, "gradient_search: " + made.error().message};
        }
        out.scores = *std::move(made);
        out.order = screen(out.scores, gradient.policy, options.fractions);
        if (gradient.probed > 0) {
            if (status why = detail::probe(session, gradient, out.order); !why) {
                return why;
            }
        }
        std::vector<index> chosen(
            out.order.begin(), out.order.begin() + std::min<std::ptrdiff_t>(gradient.matrices, std::ssize(out.order)));
        std::sort(chosen.begin(), chosen.end());
        for (const index w : chosen) {
            for (auto& c : session.candidates(w)) {
                if (std::holds_alternative<kept_components>(c.newest().what.kept)) {
                    c.predicted = out.scores[static_cast<std::size_t>(w)].loss_change(c.newest().rank);
                }
                out.candidates.push_back(std::move(c));
            }
        }
        return detail::race(session, gradient.scan, out);
    });
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_HPP

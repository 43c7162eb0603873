// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_HPP

/// \file
/// Which matrix, reduced to which rank, makes the model better: try all, choose on some samples, report on others.
///
///     std::vector<lowrank::named_weight<float>> weights = {{"mlp.up_proj.weight", up}, {"mlp.down_proj.weight",
///     down}}; auto r = lowrank::exhaustive_search<float>(weights, ask, {.validation = {0, 200}, .held_out = {200,
///     1000}}); if (r && r.winner) (void)lowrank::apply_edit<float>(r.winning_weight(weights), *r.best_spectrum,
///     r.best_edit.keep);
///
/// LASER's search (Sharma, Ash, Misra, arXiv 2312.13558, sections 4 and 5) with the exact truncation, one
/// factorization per matrix for all ranks, and the held-out samples evaluated for the winner only.

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/rank_rules.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/laser/component_set.hpp>
#include <lowrank/laser/edit.hpp>
#include <lowrank/laser/evaluation.hpp>
#include <lowrank/laser/evidence.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A weight of the model under search, borrowed; the search writes to it and restores it.
template <storage T>
struct named_weight {
    std::string name;
    weight_view<T> weight;
};

struct search_options {
    sample_range validation = {};  ///< The samples that choose. At least one.
    sample_range held_out = {};    ///< The samples that report; disjoint from those that choose. May be empty.
    /// Fractions rho of the full rank to try; rank = floor(rho * min(m, n)). LASER's grid (its table 5).
    std::vector<double> fractions = {0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01};
    double confidence = 0.95;            ///< Of the intervals in the evidence.
    index samples_per_call = 64;         ///< The evaluator gets at most so many samples at once.
    executor exec = {};                  ///< Runs the evaluator's calls.
    progress_callback on_progress = {};  ///< Called before each evaluation of a candidate; false cancels.
};

/// One (matrix, rho) that was tried.
struct search_candidate {
    index weight = 0;           ///< Which of the weights given.
    double fraction = 0;        ///< rho,
    index rank = 0;             ///< and the rank it means for this shape.
    double relative_error = 0;  ///< ||W - W_k||_F / ||W||_F, exact.
    score validation = {};      ///< On the samples that choose.
    status why = {};            ///< Not ok: the edited model's loss is not finite; it cannot win.
};

template <real S>
struct search_result {
    score baseline = {};                            ///< The unedited model on the samples that choose,
    score best = {};                                ///< and the best of it and all candidates there.
    std::optional<index> winner = {};               ///< Into `candidates`; none: the unedited model is the best.
    std::vector<search_candidate> candidates = {};  ///< All that were tried, weight by weight, in the order given.
    edit best_edit = {};                            ///< The winner, ready to be stored;
    std::optional<spectrum<S>> best_spectrum = {};  ///< with its spectrum, ready to be applied.
    score held_out_before = {};                     ///< The unedited model on the samples that report,
    score held_out_after = {};                      ///< the winner there,
    std::optional<paired_evidence> evidence = {};   ///< and how sure the difference is. None without a winner.
    index evaluated_samples = 0;                    ///< How many samples the evaluator has scored.
    status why = {};                                ///< Not ok: why the search ended early.

    explicit operator bool() const noexcept { return static_cast<bool>(why); }

    /// The weight the winner edits. \pre there is a winner, and `weights` are those of the search
    template <storage T>
    [[nodiscard]] weight_view<T> winning_weight(std::span<const named_weight<T>> weights) const {
        detail::expects(winner.has_value(), "search_result::winning_weight: no candidate beat the unedited model");
        return weights[static_cast<std::size_t>(candidates[static_cast<std::size_t>(*winner)].weight)].weight;
    }
    template <storage T>
    [[nodiscard]] weight_view<T> winning_weight(const std::vector<named_weight<T>>& weights) const {
        return winning_weight(std::span<const named_weight<T>>(weights));
    }
};

namespace detail {

/// Gives a weight its bits back when the scope ends, however it ends.
template <storage T>
class bits_guard {
public:
    explicit bits_guard(weight_view<T> w) : weight_(w), before_(w.rows(), w.cols()) {
        copy_bits<T>(const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride()), weight_view<T>(before_));
    }
    ~bits_guard() { restore(); }
    bits_guard(const bits_guard&) = delete;
    bits_guard& operator=(const bits_guard&) = delete;

    void restore() { copy_bits<T>(const_weight_view<T>(before_), weight_); }
    [[nodiscard]] const_weight_view<T> before() const { return const_weight_view<T>(before_); }

private:
    weight_view<T> weight_;
    row_matrix<T> before_;
};

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
///         unedited model; two over the held-out samples. Memory: one weight and its spectrum, the winner's spectrum.
/// \note   Deterministic if the evaluator is, with or without an executor.
template <storage T>
[[nodiscard]] search_result<compute_t<T>> exhaustive_search(std::span<const named_weight<T>> weights,
                                                            const evaluator& ask, const search_options& options) {
    using S = compute_t<T>;
    detail::expects(static_cast<bool>(ask), "exhaustive_search: the evaluator must not be empty");
    detail::expects_in_range("exhaustive_search", "validation.begin", options.validation.begin, index{0},
                             options.validation.end);
    detail::expects_in_range("exhaustive_search", "held_out.begin", options.held_out.begin, index{0},
                             options.held_out.end);
    detail::expects(options.validation.size() >= 1, "exhaustive_search: there must be samples to choose on");
    detail::expects(options.held_out.size() == 0 || options.held_out.begin >= options.validation.end ||
                        options.held_out.end <= options.validation.begin,
                    "exhaustive_search: the samples that report must not be among those that choose");
    for (const double fraction : options.fractions) {
        detail::expects_in_range("exhaustive_search", "every fraction", fraction, 0.0, 1.0);
    }

    search_result<S> out;
    const auto per_weight = static_cast<index>(options.fractions.size());
    progress at{.done = 0,
                .total = 1 + static_cast<index>(weights.size()) * per_weight + (options.held_out.size() > 0 ? 2 : 0)};
    const auto proceed = [&](std::string_view what) {
        at.what = what;
        if (report(options.on_progress, at)) {
            return true;
        }
        out.why = {errc::cancelled, "exhaustive_search: cancelled; all weights are as they were"};
        return false;
    };
    const auto scores_of = [&](sample_range range) {
        out.evaluated_samples += range.size();
        return evaluate_samples(ask, range, {options.samples_per_call, options.exec});
    };

    if (!proceed("the unedited model")) {
        return out;
    }
    const auto unedited = scores_of(options.validation);
    if (!unedited) {
        out.why = unedited.error();
        return out;
    }
    out.baseline = out.best = summarize(*unedited);
    ++at.done;

    for (std::size_t w = 0; w < weights.size(); ++w) {
        const auto& [name, view] = weights[w];
        if (!proceed(name)) {
            return out;
        }
        auto made = make_spectrum(const_weight_view<T>(view.data(), view.rows(), view.cols(), view.outerStride()));
        if (!made) {
            out.why = {made.error().code, "exhaustive_search: " + name + ": " + made.error().message};
            return out;
        }
        const auto first_of_weight = out.candidates.size();
        bool holds_winner = false;
        for (index f = 0; f < per_weight; ++f, ++at.done) {
            search_candidate c{.weight = static_cast<index>(w),
                               .fraction = options.fractions[static_cast<std::size_t>(f)]};
            c.rank = rank_from_fraction(c.fraction, view.rows(), view.cols());
            c.relative_error = made->relative_error(c.rank);
            const auto same_rank = [&]() -> const search_candidate* {
                for (auto i = first_of_weight; i < out.candidates.size(); ++i) {
                    if (out.candidates[i].rank == c.rank) {
                        return &out.candidates[i];
                    }
                }
                return nullptr;
            }();
            if (!proceed(name)) {
                return out;
            }
            if (same_rank != nullptr) {
                c.validation = same_rank->validation;
                c.why = same_rank->why;
                out.candidates.push_back(std::move(c));
                continue;
            }
            detail::bits_guard<T> guard(view);
            if (!detail::write_components<T>(guard.before(), *made, component_set::first(c.rank), view)) {
                c.why = {errc::non_finite, "the truncated weight does not fit its stored type"};
                out.candidates.push_back(std::move(c));
                continue;
            }
            const auto scores = scores_of(options.validation);
            if (scores) {
                c.validation = summarize(*scores);
                if (better(c.validation, out.best)) {
                    out.best = c.validation;
                    out.winner = static_cast<index>(out.candidates.size());
                    out.best_edit = {name, component_set::first(c.rank), made->size()};
                    holds_winner = true;
                }
            } else if (scores.error().code == errc::non_finite) {
                c.why = scores.error();
            } else {
                out.why = scores.error();
                return out;
            }
            out.candidates.push_back(std::move(c));
        }
        if (holds_winner) {
            out.best_spectrum = *std::move(made);
        }
    }

    if (options.held_out.size() > 0) {
        if (!proceed("held-out samples, before")) {
            return out;
        }
        const auto before = scores_of(options.held_out);
        if (!before) {
            out.why = before.error();
            return out;
        }
        out.held_out_before = out.held_out_after = summarize(*before);
        ++at.done;
        if (!proceed("held-out samples, after")) {
            return out;
        }
        if (out.winner) {
            const weight_view<T> view = out.winning_weight(weights);
            detail::bits_guard<T> guard(view);
            (void)detail::write_components<T>(guard.before(), *out.best_spectrum, out.best_edit.keep, view);
            const auto after = scores_of(options.held_out);
            if (!after) {
                out.why = after.error();
                return out;
            }
            out.held_out_after = summarize(*after);
            out.evidence = compare_paired(*before, *after, options.confidence);
        }
        ++at.done;
    }
    at.what = "done";
    (void)report(options.on_progress, at);
    return out;
}

/// The same for a vector of weights.
template <storage T>
[[nodiscard]] search_result<compute_t<T>> exhaustive_search(const std::vector<named_weight<T>>& weights,
                                                            const evaluator& ask, const search_options& options) {
    return exhaustive_search<T>(std::span<const named_weight<T>>(weights), ask, options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_HPP

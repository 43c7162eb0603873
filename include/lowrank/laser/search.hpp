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

#include <algorithm>
#include <cstddef>
#include <cstdint>
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
#include <lowrank/laser/edit_list.hpp>
#include <lowrank/laser/evaluation.hpp>
#include <lowrank/laser/evidence.hpp>
#include <lowrank/laser/journal.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct search_options {
    sample_range validation = {};  ///< The samples that choose. At least one.
    sample_range held_out = {};    ///< The samples that report; disjoint from those that choose. May be empty.
    /// Fractions rho of the full rank to try; rank = floor(rho * min(m, n)). LASER's grid (its table 5).
    std::vector<double> fractions = {0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01};
    double confidence = 0.95;            ///< Of the intervals in the evidence.
    index samples_per_call = 64;         ///< The evaluator gets at most so many samples at once.
    executor exec = {};                  ///< Runs the evaluator's calls.
    progress_callback on_progress = {};  ///< Called before each evaluation of a candidate; false cancels.
    search_journal* log = nullptr;       ///< Remembers evaluations, so that an interrupted search can be resumed.
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

/// Names and bits of the weights a search starts from.
template <storage T>
std::uint64_t search_fingerprint(std::span<const named_weight<T>> weights) {
    std::uint64_t hash = 0;
    for (const auto& w : weights) {
        for (const char c : w.name) {
            hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
        }
        hash ^= bits_hash<T>(w.values());
        hash *= 0x9E3779B97F4A7C15U;
    }
    return hash;
}

/// What every search does around its trials: progress, scoring, the journal.
class search_session {
public:
    search_session(const char* function, const evaluator& ask, const search_options& options, index total)
        : function_(function), ask_(&ask), options_(&options), at_{.done = 0, .total = total} {
        expects(static_cast<bool>(ask), "search: the evaluator must not be empty");
        expects_in_range(function, "validation.begin", options.validation.begin, index{0}, options.validation.end);
        expects_in_range(function, "held_out.begin", options.held_out.begin, index{0}, options.held_out.end);
        expects(options.validation.size() >= 1, "search: there must be samples to choose on");
        expects(options.held_out.size() == 0 || options.held_out.begin >= options.validation.end ||
                    options.held_out.end <= options.validation.begin,
                "search: the samples that report must not be among those that choose");
        for (const double fraction : options.fractions) {
            expects_in_range(function, "every fraction", fraction, 0.0, 1.0);
        }
    }

    /// Asks to go on with a piece of work; `step` counts the one before it as done.
    [[nodiscard]] status proceed(std::string_view what, bool step) {
        at_.done += step ? 1 : 0;
        at_.what = what;
        return report(options_->on_progress, at_)
                   ? status{}
                   : status{errc::cancelled, std::string(function_) + ": cancelled; all weights are as they were"};
    }

    /// Scores a range with the model as it is; `edits` says how that is.
    [[nodiscard]] result<sample_scores> score(sample_range range, std::string_view edits) {
        if (options_->log != nullptr) {
            if (const auto* known = options_->log->find(range, edits)) {
                return *known;
            }
        }
        evaluated_ += range.size();
        auto scores = evaluate_samples(*ask_, range, {options_->samples_per_call, options_->exec});
        if (scores && options_->log != nullptr) {
            if (status why = options_->log->add(range, edits, *scores); !why) {
                return why;
            }
        }
        return scores;
    }

    [[nodiscard]] index evaluated() const noexcept { return evaluated_; }

private:
    const char* function_;
    const evaluator* ask_;
    const search_options* options_;
    progress at_;
    index evaluated_ = 0;
};

/// Evaluates one weight at every fraction, appends a candidate for each, restores the weight. `others` describes the
/// edits in place beside it.
template <storage T>
[[nodiscard]] status try_fractions(const named_weight<T>& w, index number, const spectrum<compute_t<T>>& s,
                                   const search_options& options, const std::string& others, search_session& session,
                                   std::vector<search_candidate>& out) {
    const auto first = out.size();
    for (const double fraction : options.fractions) {
        if (status why = session.proceed(w.name, true); !why) {
            return why;
        }
        search_candidate c{.weight = number, .fraction = fraction};
        c.rank = rank_from_fraction(fraction, w.weight.rows(), w.weight.cols());
        c.relative_error = s.relative_error(c.rank);
        const auto same = std::find_if(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(),
                                       [&](const search_candidate& earlier) { return earlier.rank == c.rank; });
        if (same != out.end()) {
            c.validation = same->validation;
            c.why = same->why;
        } else {
            const auto keep = component_set::first(c.rank);
            bits_guard<T> guard(w.weight);
            if (!write_components<T>(guard.before(), s, keep, w.weight)) {
                c.why = {errc::non_finite, "the truncated weight does not fit its stored type"};
            } else if (const auto scores =
                           session.score(options.validation, others + to_text({w.name, keep, s.size()}))) {
                c.validation = summarize(*scores);
            } else if (scores.error().code == errc::non_finite) {
                c.why = scores.error();
            } else {
                return scores.error();
            }
        }
        out.push_back(std::move(c));
    }
    return {};
}

/// The spectrum of a weight as it is now; a failure names the weight.
template <storage T>
[[nodiscard]] result<spectrum<compute_t<T>>> spectrum_of(const char* function, const named_weight<T>& w) {
    auto made = make_spectrum(w.values());
    if (!made) {
        return status{made.error().code, std::string(function) + ": " + w.name + ": " + made.error().message};
    }
    return made;
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
///         unedited model; two over the held-out samples. Memory: one weight and its spectrum, the winner's spectrum.
/// \note   Deterministic if the evaluator is, with or without an executor.
template <storage T>
[[nodiscard]] search_result<compute_t<T>> exhaustive_search(std::span<const named_weight<T>> weights,
                                                            const evaluator& ask, const search_options& options) {
    using S = compute_t<T>;
    search_result<S> out;
    const auto candidates = static_cast<index>(weights.size() * options.fractions.size());
    detail::search_session session("exhaustive_search", ask, options,
                                   1 + candidates + (options.held_out.size() > 0 ? 2 : 0));
    out.why = [&]() -> status {
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
        out.baseline = out.best = summarize(*unedited);
        for (std::size_t w = 0; w < weights.size(); ++w) {
            auto made = detail::spectrum_of("exhaustive_search", weights[w]);
            if (!made) {
                return made.error();
            }
            const auto first = out.candidates.size();
            status why = detail::try_fractions<T>(weights[w], static_cast<index>(w), *made, options, "", session,
                                                  out.candidates);
            bool holds_winner = false;
            for (auto i = first; i < out.candidates.size(); ++i) {
                const auto& c = out.candidates[i];
                if (c.why && better(c.validation, out.best)) {
                    out.best = c.validation;
                    out.winner = static_cast<index>(i);
                    out.best_edit = {weights[w].name, component_set::first(c.rank), made->size()};
                    holds_winner = true;
                }
            }
            if (holds_winner) {
                out.best_spectrum = *std::move(made);
            }
            if (!why) {
                return why;
            }
        }
        if (options.held_out.size() == 0) {
            (void)session.proceed("done", true);
            return {};
        }
        if (status why = session.proceed("held-out samples, before", true); !why) {
            return why;
        }
        const auto before = session.score(options.held_out, "");
        if (!before) {
            return before.error();
        }
        out.held_out_before = out.held_out_after = summarize(*before);
        if (status why = session.proceed("held-out samples, after", true); !why) {
            return why;
        }
        if (out.winner) {
            const weight_view<T> view = out.winning_weight(weights);
            detail::bits_guard<T> guard(view);
            (void)detail::write_components<T>(guard.before(), *out.best_spectrum, out.best_edit.keep, view);
            const auto after = session.score(options.held_out, to_text(out.best_edit));
            if (!after) {
                return after.error();
            }
            out.held_out_after = summarize(*after);
            out.evidence = compare_paired(*before, *after, options.confidence);
        }
        (void)session.proceed("done", true);
        return {};
    }();
    out.evaluated_samples = session.evaluated();
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

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_DETAIL_SEARCH_SESSION_HPP
#define LOWRANK_LASER_DETAIL_SEARCH_SESSION_HPP

/// \file
/// What every search does around its trials: scoring with the journal, counting, progress, factorizations, the report
/// on held-out samples.
///
///     detail::search_session<float> session("my_search", model, options, steps);
///     lowrank::status why = session.begin();

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edit.hpp>
#include <lowrank/laser/evaluation.hpp>
#include <lowrank/laser/evidence.hpp>
#include <lowrank/laser/journal.hpp>
#include <lowrank/laser/search_model.hpp>
#include <lowrank/laser/search_options.hpp>
#include <lowrank/laser/weight_editor.hpp>

namespace lowrank::inline LOWRANK_ABI {
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

private:
    weight_view<T> weight_;
    row_matrix<T> before_;
};

/// The same from bits that somebody else keeps.
template <storage T>
class restore_guard {
public:
    restore_guard(weight_view<T> w, const weight_editor<T>& editor) : weight_(w), editor_(&editor) {}
    ~restore_guard() { copy_bits<T>(editor_->original(), weight_); }
    restore_guard(const restore_guard&) = delete;
    restore_guard& operator=(const restore_guard&) = delete;

private:
    weight_view<T> weight_;
    const weight_editor<T>* editor_;
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

/// Opened weights, the least recently used ones closed when they do not fit.
template <storage T>
class editor_cache {
public:
    editor_cache(std::span<const named_weight<T>> weights, std::size_t budget)
        : weights_(weights), budget_(budget), open_(weights.size()), used_(weights.size(), 0) {}

    /// \pre the weight has its own bits at this time. The pointer is good until the next call.
    [[nodiscard]] result<weight_editor<T>*> get(index weight) {
        const auto w = static_cast<std::size_t>(weight);
        used_[w] = ++clock_;
        if (open_[w] == nullptr) {
            auto made = weight_editor<T>::open(weights_[w]);
            if (!made) {
                return made.error();
            }
            open_[w] = std::make_unique<weight_editor<T>>(*std::move(made));
            ++factorizations_;
        }
        make_room(w);
        return open_[w].get();
    }

    [[nodiscard]] index factorizations() const noexcept { return factorizations_; }
    /// About what an opened weight of this shape holds.
    [[nodiscard]] std::size_t bytes_of(index weight) const {
        const auto& w = weights_[static_cast<std::size_t>(weight)].weight;
        const index r = std::min(w.rows(), w.cols());
        return static_cast<std::size_t>((w.rows() + w.cols() + 1) * r) * sizeof(compute_t<T>) +
               static_cast<std::size_t>(w.size()) * sizeof(T);
    }

private:
    void make_room(std::size_t wanted) {
        while (true) {
            std::size_t total = 0, oldest = open_.size();
            for (std::size_t i = 0; i < open_.size(); ++i) {
                if (open_[i] == nullptr) {
                    continue;
                }
                total += open_[i]->bytes();
                if (i != wanted && (oldest == open_.size() || used_[i] < used_[oldest])) {
                    oldest = i;
                }
            }
            if (total <= budget_ || oldest == open_.size()) {
                return;
            }
            open_[oldest].reset();
        }
    }

    std::span<const named_weight<T>> weights_;
    std::size_t budget_;
    std::vector<std::unique_ptr<weight_editor<T>>> open_;
    std::vector<std::uint64_t> used_;
    std::uint64_t clock_ = 0;
    index factorizations_ = 0;
};

template <storage T>
class search_session {
public:
    search_session(const char* function, const search_model<T>& model, const search_options& options, index total)
        : function_(function),
          model_(&model),
          options_(&options),
          editors_(model.weights, options.factor_bytes),
          at_{.done = 0, .total = total} {
        expects_search_model(function, model);
        expects_in_range(function, "validation.begin", options.validation.begin, index{0}, options.validation.end);
        expects_in_range(function, "held_out.begin", options.held_out.begin, index{0}, options.held_out.end);
        expects(options.validation.size() >= 1, "search: there must be samples to choose on");
        expects(options.held_out.size() == 0 || options.held_out.begin >= options.validation.end ||
                    options.held_out.end <= options.validation.begin,
                "search: the samples that report must not be among those that choose");
        for (const double fraction : options.fractions) {
            expects_in_range(function, "every fraction", fraction, 0.0, 1.0);
        }
        for (const double density : options.densities) {
            expects_in_range(function, "every density", density, 0.0, 1.0);
        }
        for (const index groups : options.groups) {
            expects(groups >= 1, "search: a number of groups must be at least 1");
        }
    }

    /// Starts the journal and scores the unedited model on the samples that choose.
    [[nodiscard]] status begin(score& baseline) {
        if (options_->log != nullptr) {
            if (status why =
                    options_->log->begin(search_fingerprint(std::span<const named_weight<T>>(model_->weights)));
                !why) {
                return why;
            }
        }
        if (status why = proceed("the unedited model", false); !why) {
            return why;
        }
        auto scores = score_range(options_->validation, "", model_->layers);
        if (!scores) {
            return scores.error();
        }
        unedited_ = *std::move(scores);
        baseline = summarize(unedited_);
        return {};
    }

    /// Asks to go on with a piece of work; `step` counts the one before it as done.
    [[nodiscard]] status proceed(std::string_view what, bool step) {
        at_.done = std::min(at_.total, at_.done + (step ? 1 : 0));
        at_.what = what;
        return report(options_->on_progress, at_)
                   ? status{}
                   : status{errc::cancelled, std::string(function_) + ": cancelled; all weights are as they were"};
    }

    /// Scores a range with the model as it is; `edits` says how that is, `first` is the lowest edited layer, `layers`
    /// if there is none. The unedited model counts as run from the start.
    [[nodiscard]] result<sample_scores> score_range(sample_range range, std::string_view edits, index first) {
        if (options_->log != nullptr) {
            if (const auto* known = options_->log->find(range, edits)) {
                return *known;
            }
        }
        const evaluator* ask = &model_->ask;
        evaluator from;
        if (model_->ask_from) {
            from = [this, first](sample_range r) { return model_->ask_from(r, first); };
            ask = &from;
        }
        count(range.size(), model_->layers - (model_->ask_from && first < model_->layers ? first : 0));
        auto scores = evaluate_samples(*ask, range, {options_->samples_per_call, options_->exec});
        if (scores && options_->log != nullptr) {
            if (status why = options_->log->add(range, edits, *scores); !why) {
                return why;
            }
        }
        return scores;
    }

    /// Writes the edit, scores the range, gives the weight its bits back. A loss that is not finite and a weight that
    /// does not fit its type are said in `c.why`, not in the result. `others` describes edits in place beside it, the
    /// lowest of them in layer `first`.
    [[nodiscard]] result<sample_scores> try_edit(search_candidate& c, sample_range range,
                                                 const std::string& others = {}, index first = -1) {
        const auto& w = model_->weights[static_cast<std::size_t>(c.weight)];
        auto editor = editors_.get(c.weight);
        if (!editor) {
            return status{editor.error().code, std::string(function_) + ": " + editor.error().message};
        }
        const restore_guard<T> guard(w.weight, **editor);
        const auto size = (*editor)->write(c.what, w.weight);
        if (!size) {
            c.why = size.error();
            return sample_scores{};
        }
        c.relative_error = size->relative_error;
        c.parameters = size->parameters;
        const index layer = model_->layer(c.weight);
        auto scores = score_range(range, others + to_text(c.what), first < 0 ? layer : std::min(first, layer));
        if (!scores && scores.error().code == errc::non_finite) {
            c.why = scores.error();
            return sample_scores{};
        }
        return scores;
    }

    /// The edits the options ask for of one weight, not yet tried; equal ranks are listed for each fraction.
    [[nodiscard]] std::vector<search_candidate> candidates_of(index weight) const {
        const auto& w = model_->weights[static_cast<std::size_t>(weight)];
        std::vector<search_candidate> out;
        for (const index groups : options_->groups) {
            for (int clustered = 0; clustered < (options_->clusters && groups > 1 ? 2 : 1); ++clustered) {
                if (groups > std::max<index>(w.weight.rows(), 1)) {
                    continue;
                }
                const index all = std::min((w.weight.rows() + groups - 1) / groups, w.weight.cols());
                for (const double fraction : options_->fractions) {
                    search_candidate c{.weight = weight, .fraction = fraction};
                    c.rank = rank_from_fraction(fraction, all, all);
                    c.what = {w.name, component_set::first(c.rank), all, groups, clustered == 1};
                    out.push_back(std::move(c));
                }
            }
        }
        for (const double density : options_->densities) {
            const index all = w.weight.size();
            search_candidate c{.weight = weight, .fraction = density};
            c.rank = std::min(w.weight.rows(), w.weight.cols());
            c.what = {.weight = w.name,
                      .keep = component_set::first(rank_from_fraction(density, all, all)),
                      .components = all,
                      .entries = true};
            out.push_back(std::move(c));
        }
        return out;
    }

    /// What is the same for all searches at their end: the best candidate judged on all samples that choose becomes the
    /// winner, and the held-out samples are scored without and with it. `scores(i)` are those of candidate i.
    template <real S, class F>
    [[nodiscard]] status finish(search_result<S>& out, F&& scores) {
        out.best = out.baseline;
        for (std::size_t i = 0; i < out.candidates.size(); ++i) {
            const auto& c = out.candidates[i];
            if (c.why && c.validation.samples == out.best.samples && better(c.validation, out.best)) {
                out.best = c.validation;
                out.winner = static_cast<index>(i);
                out.best_edit = c.what;
            }
        }
        const search_candidate* best = out.winner ? &out.candidates[static_cast<std::size_t>(*out.winner)] : nullptr;
        if (best != nullptr) {
            out.selection =
                compare_paired(unedited_, scores(static_cast<std::size_t>(*out.winner)), options_->confidence);
            const auto editor = editors_.get(best->weight);
            if (!editor) {
                return editor.error();
            }
            out.best_spectrum = (*editor)->whole();
        }
        if (options_->held_out.size() > 0) {
            if (status why = proceed("held-out samples, before", true); !why) {
                return why;
            }
            const auto before = score_range(options_->held_out, "", model_->layers);
            if (!before) {
                return before.error();
            }
            out.held_out_before = out.held_out_after = summarize(*before);
            if (status why = proceed("held-out samples, after", true); !why) {
                return why;
            }
            if (best != nullptr) {
                search_candidate again = *best;
                const auto after = try_edit(again, options_->held_out);
                if (!after) {
                    return after.error();
                }
                if (!again.why) {
                    return again.why;
                }
                out.held_out_after = summarize(*after);
                out.evidence = compare_paired(*before, *after, options_->confidence);
            }
        }
        (void)proceed("done", true);
        return {};
    }

    template <class R>
    void count_into(R& out) const {
        out.evaluated_samples = evaluated_;
        out.evaluated_sample_layers = sample_layers_;
        out.factorizations = editors_.factorizations();
    }
    void count(index samples, index layers) {
        evaluated_ += samples;
        sample_layers_ += samples * layers;
    }
    /// More work than was known at the start.
    void extend(index steps) { at_.total += steps; }

    [[nodiscard]] const sample_scores& unedited() const noexcept { return unedited_; }
    [[nodiscard]] editor_cache<T>& editors() noexcept { return editors_; }

private:
    const char* function_;
    const search_model<T>* model_;
    const search_options* options_;
    editor_cache<T> editors_;
    progress at_;
    sample_scores unedited_ = {};
    index evaluated_ = 0;
    index sample_layers_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_DETAIL_SEARCH_SESSION_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP

/// \file
/// What every search does around its trials: scoring with the journal, counting, progress, factorizations, the report
/// on held-out samples.
///
///     detail::search_session<float> session("my_search", model, options, steps);
///     lowrank::status why = session.begin();

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/component_set.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/journal.hpp>
#include <lowrank/laser/edits/nested_ranks.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/search/detail/open_weights.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

template <storage T>
class search_session {
public:
    search_session(const char* function, const search_model<T>& model, const search_options& options, index total)
        : function_(function),
          model_(&model),
          options_(&options),
          editors_(model.weights, options.factor_bytes, model.read),
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
            const auto print = search_fingerprint(*model_);
            if (!print) {
                return print.error();
            }
            if (status why = options_->log->begin(*print); !why) {
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
        const evaluator* evaluate = &model_->evaluate;
        evaluator from;
        if (model_->evaluate_from_layer) {
            from = [this, first](sample_range r) { return model_->evaluate_from_layer(r, first); };
            evaluate = &from;
        }
        const index layers = model_->layers - (model_->evaluate_from_layer && first < model_->layers ? first : 0);
        count(range.size(), layers);
        held_out_layers_ += range == options_->held_out ? range.size() * layers : 0;
        auto scores = evaluate_samples(*evaluate, range, {options_->samples_per_call, options_->exec});
        if (scores && options_->log != nullptr) {
            if (status why = options_->log->add(range, edits, *scores); !why) {
                return why;
            }
        }
        return scores;
    }

    /// Asks the model, if it has the hook, for the scores of all edits among `wanted` that truncate one whole weight,
    /// at once. `try_edit` then finds them. \pre all are of one weight; others and first as for `try_edit`
    [[nodiscard]] status prefetch_scores(std::span<const search_candidate> wanted, sample_range range,
                                         const std::string& others = {}, index first = -1) {
        foreseen_.clear();
        if (!model_->evaluate_ranks || wanted.empty()) {
            return {};
        }
        const index weight = wanted.front().weight;
        std::map<index, std::string> ranks;
        bool all_known = options_->log != nullptr;
        for (const auto& c : wanted) {
            if (c.what.groups == 1 && !c.what.entries && c.what.keep == component_set::first(c.what.keep.size())) {
                const auto text = others + to_text(c.what);
                all_known = all_known && options_->log->find(range, text) != nullptr;
                ranks.emplace(c.what.keep.size(), text);
            }
        }
        if (ranks.empty() || all_known) {
            return {};
        }
        const auto editor = editors_.get(weight);
        if (!editor) {
            return {editor.error().code, std::string(function_) + ": " + editor.error().message};
        }
        std::vector<index> values;
        std::vector<sample_scores> scores(ranks.size());
        for (const auto& [rank, text] : ranks) {
            values.push_back(rank);
        }
        const nested_ranks<compute_t<T>> nested((*editor)->whole(), std::move(values));
        const index layer = model_->layer(weight);
        for (index begin = range.begin; begin < range.end; begin += options_->samples_per_call) {
            const sample_range part{begin, std::min(range.end, begin + options_->samples_per_call)};
            const auto some = model_->evaluate_ranks(part, weight, nested, first < 0 ? layer : std::min(first, layer));
            if (!some) {
                return some.error();
            }
            expects(some->size() == scores.size(), "search: evaluate_ranks must answer for every rank");
            for (std::size_t i = 0; i < scores.size(); ++i) {
                expects((*some)[i].size() == part.size(), "search: evaluate_ranks must score every sample");
                scores[i].correct.insert(scores[i].correct.end(), (*some)[i].correct.begin(), (*some)[i].correct.end());
                scores[i].log_loss.insert(scores[i].log_loss.end(), (*some)[i].log_loss.begin(),
                                          (*some)[i].log_loss.end());
            }
        }
        foreseen_range_ = range;
        std::size_t i = 0;
        for (const auto& [rank, text] : ranks) {
            foreseen_.emplace(text, std::move(scores[i++]));
        }
        return {};
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
        const auto text = others + to_text(c.what);
        const index layer = model_->layer(c.weight), from = first < 0 ? layer : std::min(first, layer);
        const auto take_size = [&c](const edit_size& size) {
            c.relative_error = size.relative_error;
            c.parameters = size.parameters;
        };
        if (const auto known = foreseen_.find(text); known != foreseen_.end() && range == foreseen_range_) {
            take_size((*editor)->size_of_components(c.what.keep));
            return take_foreseen(c, range, text, from, known->second);
        }
        place_guard<T> placed(*model_);
        std::optional<restore_guard<T>> guard;
        if (!model_->override_weight) {
            guard.emplace(w.weight, **editor);
        }
        const auto size =
            model_->override_weight ? placed.put(c.weight, **editor, c.what) : (*editor)->write(c.what, w.weight);
        if (!size) {
            c.why = size.error();
            return sample_scores{};
        }
        take_size(*size);
        auto scores = score_range(range, text, from);
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
        out.held_out_sample_layers = held_out_layers_;
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
    /// Foreseen scores become those of a trial: counted, written to the journal, checked.
    [[nodiscard]] result<sample_scores> take_foreseen(search_candidate& c, sample_range range, const std::string& text,
                                                      index from, const sample_scores& scores) {
        if (options_->log != nullptr) {
            if (const auto* known = options_->log->find(range, text)) {
                return *known;
            }
        }
        count(range.size(), model_->layers - from);
        if (!std::all_of(scores.log_loss.begin(), scores.log_loss.end(), [](double x) { return is_finite(x); })) {
            c.why = {errc::non_finite, std::string(function_) + ": the log-loss of a sample is not finite"};
            return sample_scores{};
        }
        if (options_->log != nullptr) {
            if (status why = options_->log->add(range, text, scores); !why) {
                return why;
            }
        }
        return scores;
    }

    const char* function_;
    const search_model<T>* model_;
    const search_options* options_;
    editor_cache<T> editors_;
    progress at_;
    sample_scores unedited_ = {};
    std::map<std::string, sample_scores> foreseen_ = {};  ///< Of edits not yet tried, by their text,
    sample_range foreseen_range_ = {};                    ///< on these samples.
    index evaluated_ = 0;
    index sample_layers_ = 0;
    index held_out_layers_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP

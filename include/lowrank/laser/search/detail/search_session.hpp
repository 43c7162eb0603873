// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP

/// \file
/// What every search shares: the candidates, their evaluation with journal and counts, and the held-out protocol.
///
///     detail::search_session<float> session("my_search", model, options);
///     return session.run([&](search_result& out) -> status {
///         out.candidates = session.candidates(0);
///         auto scores = session.evaluate(out.candidates[0], options.validation);
///         ...
///         session.judge(out, 0, *std::move(scores));
///         return {};
///     });

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
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

/// The same edits of the same weights.
inline bool same_edits(std::span<const candidate_edit> a, std::span<const candidate_edit> b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const candidate_edit& x, const candidate_edit& y) {
        return x.weight == y.weight && x.what == y.what;
    });
}

/// The edits as the journal has them.
inline std::string text_of(std::span<const candidate_edit> edits) {
    std::string text;
    for (const auto& e : edits) {
        text += (text.empty() ? "" : "\t") + to_text(e.what);
    }
    return text;
}

template <storage T>
class search_session {
public:
    search_session(const char* function, const search_model<T>& model, const search_options& options)
        : function_(function),
          model_(&model),
          options_(&options),
          editors_(model, options.factor_bytes),
          in_place_(model, editors_),
          at_{.total = options.held_out.size() > 0 ? 3 : 1} {
        expects_search_model(function, model);
        expects_in_range(function, "validation.begin", options.validation.begin, index{0}, options.validation.end);
        expects_in_range(function, "held_out.begin", options.held_out.begin, index{0}, options.held_out.end);
        expects(options.validation.size() >= 1, "search: there must be a validation sample");
        expects(options.held_out.size() == 0 || options.held_out.begin >= options.validation.end ||
                    options.held_out.end <= options.validation.begin,
                "search: held-out samples must not be among the validation samples");
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

    /// The whole search: the unedited model on the validation samples, the strategy `find(result)`, which tries
    /// candidates, and the report on the held-out samples.
    template <class F>
    [[nodiscard]] search_result run(F&& find) {
        search_result out;
        out.why = begin(out);
        if (out.why) {
            out.why = find(out);
        }
        if (out.why) {
            out.why = finish(out);
        }
        out.evaluated_samples = evaluated_;
        out.evaluated_sample_layers = sample_layers_;
        out.held_out_sample_layers = held_out_layers_;
        out.factorizations = editors_.factorizations();
        return out;
    }

    /// The candidates that the options ask for, not yet tried: each edits all of `weights` in the same way, with the
    /// edits of `base` in place. Ways that one of the weights is too small for are left out.
    [[nodiscard]] std::vector<search_candidate> candidates(const std::string& name, std::span<const index> weights,
                                                           const std::vector<candidate_edit>& base = {}) const {
        std::vector<search_candidate> out;
        const auto add = [&](double fraction, index groups, const auto& kept) {
            search_candidate c{.name = name, .edits = base};
            for (const index number : weights) {
                const auto& w = model_->weights[static_cast<std::size_t>(number)];
                const index m = w.weight.rows(), n = w.weight.cols();
                if (groups > std::max<index>(m, 1)) {
                    return;
                }
                edit e{w.name, kept(m, n)};
                const bool entries = std::holds_alternative<kept_entries>(e.kept);
                const index rank = entries ? std::min(m, n) : e.keep().size();
                c.edits.push_back({.what = std::move(e), .weight = number, .fraction = fraction, .rank = rank});
            }
            out.push_back(std::move(c));
        };
        for (const index groups : options_->groups) {
            for (int way = groups == 1 ? 0 : 1; way <= (groups == 1 ? 0 : options_->clusters ? 2 : 1); ++way) {
                for (const double f : options_->fractions) {
                    add(f, groups, [&](index m, index n) -> decltype(edit::kept) {
                        if (way == 0) {
                            return kept_components::fraction(f, m, n);
                        }
                        if (way == 1) {
                            return kept_blocks::fraction(f, m, n, groups);
                        }
                        return kept_clusters::fraction(f, m, n, groups);
                    });
                }
            }
        }
        for (const double density : options_->densities) {
            add(density, 1, [&](index m, index n) { return kept_entries::fraction(density, m, n); });
        }
        return out;
    }
    [[nodiscard]] std::vector<search_candidate> candidates(index weight,
                                                           const std::vector<candidate_edit>& base = {}) const {
        return candidates(model_->weights[static_cast<std::size_t>(weight)].name, std::span(&weight, 1), base);
    }

    /// Scores the candidate on a range, with its edits in place, and fills in their sizes. Why it cannot be scored is
    /// said in `c.why` if it is the candidate's fault; other failures end the search.
    [[nodiscard]] result<sample_scores> evaluate(search_candidate& c, sample_range range) {
        const auto text = text_of(c.edits);
        if (const auto known = prefetched_.find(text); known != prefetched_.end() && range == prefetched_range_) {
            const auto editor = open(c.edits.back().weight);
            if (!editor) {
                return editor.error();
            }
            c.edits.back().size = (*editor)->size_of_components(c.edits.back().what.keep());
            take_sizes(c);
            return take_prefetched(c, range, text, known->second);
        }
        if (status why = in_place_.put(c); !why) {
            return status{why.code, std::string(function_) + ": " + why.message};
        }
        take_sizes(c);
        if (!c.why) {
            return sample_scores{};
        }
        auto scores = score_range(range, text, first_layer(c.edits));
        if (!scores && scores.error().code == errc::non_finite) {
            c.why = scores.error();
            return sample_scores{};
        }
        return scores;
    }

    /// Asks the model, if it has the hook, for the scores of all candidates that truncate one and the same weight, at
    /// once. `evaluate` then finds them. Does nothing unless the candidates differ in their last edit alone.
    [[nodiscard]] status prefetch_scores(std::span<const search_candidate> wanted, sample_range range) {
        prefetched_.clear();
        if (!model_->evaluate_ranks || wanted.empty()) {
            return {};
        }
        search_candidate base{.edits = wanted.front().edits};
        const index weight = base.edits.back().weight, first = first_layer(base.edits);
        base.edits.pop_back();
        std::map<index, std::string> texts;  // by rank
        bool all_known = options_->log != nullptr;
        for (const auto& c : wanted) {
            if (c.edits.back().weight != weight ||
                !same_edits(std::span(c.edits).first(c.edits.size() - 1), base.edits)) {
                return {};
            }
            const auto* part = std::get_if<kept_components>(&c.edits.back().what.kept);
            if (part != nullptr && part->keep == component_set::first(part->keep.size())) {
                const auto text = text_of(c.edits);
                all_known = all_known && options_->log->find(range, text) != nullptr;
                texts.emplace(part->keep.size(), text);
            }
        }
        if (texts.empty() || all_known) {
            return {};
        }
        if (status why = in_place_.put(base); !why || !base.why) {
            return why ? base.why : why;
        }
        const auto editor = open(weight);
        if (!editor) {
            return editor.error();
        }
        std::vector<index> ranks;
        std::vector<sample_scores> scores(texts.size());
        for (const auto& [rank, text] : texts) {
            ranks.push_back(rank);
        }
        const auto& factors = (*editor)->components(ranks.empty() ? 0 : ranks.back());
        if (!factors) {
            return factors.why;
        }
        const nested_ranks<compute_t<T>> nested(factors, std::move(ranks));
        for (index begin = range.begin; begin < range.end; begin += options_->samples_per_call) {
            const sample_range part{begin, std::min(range.end, begin + options_->samples_per_call)};
            const auto some = model_->evaluate_ranks(part, weight, nested, first);
            if (!some) {
                return some.error();
            }
            expects(some->size() == scores.size(), "search: evaluate_ranks must answer for every rank");
            for (std::size_t i = 0; i < scores.size(); ++i) {
                expects((*some)[i].size() == part.size(), "search: evaluate_ranks must score every sample");
                scores[i].append((*some)[i]);
            }
        }
        prefetched_range_ = range;
        std::size_t i = 0;
        for (const auto& [rank, text] : texts) {
            prefetched_.emplace(text, std::move(scores[i++]));
        }
        return {};
    }

    /// Candidate i of the result has these scores on all validation samples: it is the winner if it is strictly better
    /// than the unedited model and all judged before it.
    void judge(search_result& out, std::size_t i, sample_scores scores) {
        if (const auto& c = out.candidates[i]; better(c.validation, out.best)) {
            out.best = c.validation;
            out.winner = static_cast<index>(i);
            best_scores_ = std::move(scores);
        }
    }

    /// Scores the unedited model on the held-out samples, once.
    [[nodiscard]] status held_out_before(search_result& out) {
        if (options_->held_out.size() == 0 || before_) {
            return {};
        }
        if (status why = proceed("held-out samples, before"); !why) {
            return why;
        }
        auto scores = evaluate_or_fail({}, options_->held_out);
        if (!scores) {
            return scores.error();
        }
        out.held_out_before = out.held_out_after = summarize(*scores);
        before_ = *std::move(scores);
        return {};
    }

    /// Asks to go on with a piece of work; `step` counts the one before it as done.
    [[nodiscard]] status proceed(std::string_view what, bool step = true) {
        at_.done = std::min(at_.total, at_.done + (step ? 1 : 0));
        at_.what = what;
        return report(options_->on_progress, at_)
                   ? status{}
                   : status{errc::cancelled, std::string(function_) + ": cancelled; all weights are as they were"};
    }
    void count(index samples, index layers) {
        evaluated_ += samples;
        sample_layers_ += samples * layers;
    }
    /// More work than was known.
    void extend(std::size_t steps) { at_.total += static_cast<index>(steps); }

    [[nodiscard]] editor_cache<T>& editors() noexcept { return editors_; }
    [[nodiscard]] const search_model<T>& model() const noexcept { return *model_; }
    [[nodiscard]] const search_options& options() const noexcept { return *options_; }

private:
    /// Starts the journal and scores the unedited model on the validation samples.
    [[nodiscard]] status begin(search_result& out) {
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
        auto scores = evaluate_or_fail({}, options_->validation);
        if (!scores) {
            return scores.error();
        }
        unedited_ = *std::move(scores);
        out.baseline = out.best = summarize(unedited_);
        return {};
    }

    /// The held-out protocol: the validation samples have chosen the winner; the held-out samples are scored for the
    /// unedited model and for the winner alone.
    [[nodiscard]] status finish(search_result& out) {
        if (out.winner) {
            for (auto& e : out.candidates[static_cast<std::size_t>(*out.winner)].edits) {
                e.validation = e.validation.samples > 0 ? e.validation : out.best;
            }
            out.selection = compare_paired(unedited_, best_scores_, options_->confidence);
        }
        if (status why = held_out_before(out); !why) {
            return why;
        }
        if (options_->held_out.size() > 0) {
            if (status why = proceed("held-out samples, after"); !why) {
                return why;
            }
            if (out.winner) {
                const auto after = evaluate_or_fail(*out.winning(), options_->held_out);
                if (!after) {
                    return after.error();
                }
                out.held_out_after = summarize(*after);
                out.evidence = compare_paired(*before_, *after, options_->confidence);
            }
        }
        (void)proceed("done");
        return {};
    }

    /// The same for a candidate without whose scores the search cannot go on.
    [[nodiscard]] result<sample_scores> evaluate_or_fail(search_candidate c, sample_range range) {
        auto scores = evaluate(c, range);
        return c.why ? std::move(scores) : result<sample_scores>(c.why);
    }

    /// Scores a range with the model as it is; `edits` says how that is, `first` is the lowest edited layer, `layers`
    /// if there is none. The unedited model counts as run from the start.
    [[nodiscard]] result<sample_scores> score_range(sample_range range, const std::string& edits, index first) {
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

    /// Prefetched scores become those of an evaluation: counted, written to the journal, checked.
    [[nodiscard]] result<sample_scores> take_prefetched(search_candidate& c, sample_range range,
                                                        const std::string& text, const sample_scores& scores) {
        if (options_->log != nullptr) {
            if (const auto* known = options_->log->find(range, text)) {
                return *known;
            }
        }
        count(range.size(), model_->layers - first_layer(c.edits));
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

    [[nodiscard]] result<weight_editor<T>*> open(index weight) {
        auto editor = editors_.get(weight);
        return editor ? editor : status{editor.error().code, std::string(function_) + ": " + editor.error().message};
    }

    [[nodiscard]] index first_layer(std::span<const candidate_edit> edits) const {
        index first = model_->layers;
        for (const auto& e : edits) {
            first = std::min(first, model_->layer(e.weight));
        }
        return first;
    }

    static void take_sizes(search_candidate& c) {
        double removed = 0, whole = 0;
        c.parameters = 0;
        for (const auto& e : c.edits) {
            removed = std::hypot(removed, e.size.removed_norm);
            whole = std::hypot(whole, e.size.weight_norm);
            c.parameters += e.size.parameters;
        }
        c.relative_error = whole > 0 ? removed / whole : 0.0;
    }

    const char* function_;
    const search_model<T>* model_;
    const search_options* options_;
    editor_cache<T> editors_;
    edits_in_place<T> in_place_;
    progress at_;
    sample_scores unedited_ = {};                           ///< On the validation samples,
    sample_scores best_scores_ = {};                        ///< those of the winner there,
    std::optional<sample_scores> before_ = {};              ///< and of the unedited model on the held-out samples.
    std::map<std::string, sample_scores> prefetched_ = {};  ///< Of candidates not yet evaluated, by their text,
    sample_range prefetched_range_ = {};                    ///< on these samples.
    index evaluated_ = 0;
    index sample_layers_ = 0;
    index held_out_layers_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP

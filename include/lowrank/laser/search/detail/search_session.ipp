// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_IPP
#define LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_IPP

#include <lowrank/laser/search/detail/search_session.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/laser/edits/component_set.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/journal.hpp>
#include <lowrank/laser/evidence/evidence.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY bool same_edits(std::span<const candidate_edit> a, std::span<const candidate_edit> b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const candidate_edit& x, const candidate_edit& y) {
        return x.weight == y.weight && x.what == y.what;
    });
}

LOWRANK_BODY std::string text_of(std::span<const candidate_edit> edits) {
    std::string text;
    for (const auto& e : edits) {
        text += (text.empty() ? "" : "\t") + to_text(e.what);
    }
    return text;
}

LOWRANK_BODY search_session::search_session(const char* function, searched_model& model, const search_options& options)
    : function_(function), model_(&model), options_(&options), at_{.total = options.held_out.size() > 0 ? 3 : 1} {
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

LOWRANK_BODY search_result search_session::run(const std::function<status(search_result&)>& find) {
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
    out.factorizations = model_->factorizations();
    return out;
}

LOWRANK_BODY std::vector<search_candidate> search_session::candidates(const std::string& name,
                                                                      std::span<const index> weights,
                                                                      const std::vector<candidate_edit>& base) const {
    std::vector<search_candidate> out;
    const auto add = [&](double fraction, index groups, const auto& kept) {
        search_candidate c{.name = name, .edits = base};
        for (const index number : weights) {
            const auto& w = model_->weights[static_cast<std::size_t>(number)];
            const index m = w.rows, n = w.cols;
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

LOWRANK_BODY std::vector<search_candidate> search_session::candidates(index weight,
                                                                      const std::vector<candidate_edit>& base) const {
    return candidates(model_->weights[static_cast<std::size_t>(weight)].name, std::span(&weight, 1), base);
}

LOWRANK_BODY result<sample_scores> search_session::evaluate(search_candidate& c, sample_range range) {
    const auto text = text_of(c.edits);
    const auto known = prefetched_.find(text);
    const bool here = known != prefetched_.end() && range == prefetched_range_;
    if (here) {
        const auto size = model_->size_of(c.edits.back().weight, c.edits.back().what.keep());
        if (!size) {
            return named(size.error());
        }
        c.edits.back().size = *size;
    } else if (status why = model_->put(c); !why) {
        return named(why);
    }
    take_sizes(c);
    if (!c.why) {
        return sample_scores{};
    }
    auto scores = score_range(range, text, first_layer(c.edits), here ? &known->second : nullptr);
    if (!scores && scores.error().code == errc::non_finite) {
        c.why = scores.error();
        return sample_scores{};
    }
    return scores;
}

LOWRANK_BODY status search_session::prefetch_scores(std::span<const search_candidate> wanted, sample_range range) {
    prefetched_.clear();
    if (!model_->has_ranks || wanted.empty()) {
        return {};
    }
    search_candidate base{.edits = wanted.front().edits};
    const index weight = base.edits.back().weight, first = first_layer(base.edits);
    base.edits.pop_back();
    std::map<index, std::string> texts;  // by rank
    bool all_known = options_->log != nullptr;
    for (const auto& c : wanted) {
        if (c.edits.back().weight != weight || !same_edits(std::span(c.edits).first(c.edits.size() - 1), base.edits)) {
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
    if (status why = model_->put(base); !why || !base.why) {
        return why ? base.why : why;
    }
    std::vector<index> ranks;
    for (const auto& [rank, text] : texts) {
        ranks.push_back(rank);
    }
    auto scores = model_->evaluate_ranks(range, weight, std::move(ranks), first, options_->samples_per_call);
    if (!scores) {
        return named(scores.error());
    }
    prefetched_range_ = range;
    std::size_t i = 0;
    for (const auto& [rank, text] : texts) {
        prefetched_.emplace(text, std::move((*scores)[i++]));
    }
    return {};
}

LOWRANK_BODY void search_session::judge(search_result& out, std::size_t i, sample_scores scores) {
    if (const auto& c = out.candidates[i]; better(c.validation, out.best)) {
        out.best = c.validation;
        out.winner = static_cast<index>(i);
        best_scores_ = std::move(scores);
    }
}

LOWRANK_BODY status search_session::held_out_before(search_result& out) {
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

LOWRANK_BODY status search_session::proceed(std::string_view what, bool step) {
    at_.done = std::min(at_.total, at_.done + (step ? 1 : 0));
    at_.what = what;
    return report(options_->on_progress, at_)
               ? status{}
               : failed_in(function_, errc::cancelled, "cancelled; all weights are as they were");
}

LOWRANK_BODY void search_session::count(index samples, index layers) {
    evaluated_ += samples;
    sample_layers_ += samples * layers;
}

LOWRANK_BODY status search_session::begin(search_result& out) {
    if (options_->log != nullptr) {
        const auto print = model_->fingerprint();
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

LOWRANK_BODY status search_session::finish(search_result& out) {
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

LOWRANK_BODY result<sample_scores> search_session::evaluate_or_fail(search_candidate c, sample_range range) {
    auto scores = evaluate(c, range);
    return c.why ? std::move(scores) : result<sample_scores>(c.why);
}

LOWRANK_BODY result<sample_scores> search_session::score_range(sample_range range, const std::string& edits,
                                                               index first, const sample_scores* known) {
    if (const auto* old = options_->log != nullptr ? options_->log->find(range, edits) : nullptr) {
        return *old;
    }
    const bool from = *model_->evaluate_from_layer != nullptr;
    const index layers = model_->layers - ((known != nullptr || from) && first < model_->layers ? first : 0);
    count(range.size(), layers);
    held_out_layers_ += range == options_->held_out ? range.size() * layers : 0;
    const evaluator from_layer = [&](sample_range r) { return (*model_->evaluate_from_layer)(r, first); };
    const evaluator copy = [&](sample_range) { return *known; };
    const evaluator& evaluate = known != nullptr ? copy : from ? from_layer : *model_->evaluate;
    auto scores = known != nullptr ? evaluate_samples(evaluate, range, {.samples_per_call = range.size()})
                                   : evaluate_samples(evaluate, range, {options_->samples_per_call, options_->exec});
    if (scores && options_->log != nullptr) {
        if (status why = options_->log->add(range, edits, *scores); !why) {
            return why;
        }
    }
    return scores;
}

LOWRANK_BODY index search_session::first_layer(std::span<const candidate_edit> edits) const {
    index first = model_->layers;
    for (const auto& e : edits) {
        first = std::min(first, model_->weights[static_cast<std::size_t>(e.weight)].layer);
    }
    return first;
}

LOWRANK_BODY void search_session::take_sizes(search_candidate& c) {
    double removed = 0, whole = 0;
    c.parameters = 0;
    for (const auto& e : c.edits) {
        removed = std::hypot(removed, e.size.removed_norm);
        whole = std::hypot(whole, e.size.weight_norm);
        c.parameters += e.size.parameters;
    }
    c.relative_error = whole > 0 ? removed / whole : 0.0;
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_IPP

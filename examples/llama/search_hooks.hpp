// SPDX-License-Identifier: MIT
#ifndef LLAMA_SEARCH_HOOKS_HPP
#define LLAMA_SEARCH_HOOKS_HPP

/// \file
/// What a search over edits asks of this engine: scores, re-runs from a layer on, gradients at every linear layer.
///
///     llama::searchable<float> engine(m, batch, {.kind = llama::sample_kind::sequence});
///     auto found = lowrank::gradient_search(engine.hooks(), {.validation = {0, 100}, .held_out = {100, 400}});
///
/// The input of a layer, for all tokens of the batch, is hidden x tokens numbers. Inputs of as many layers as fit
/// `cache_bytes` are kept (at least one, and one more while a pass makes it); an edit in layer l then costs the layers
/// from l on. If the inputs of all layers fit, the pass of the unedited model leaves them all behind.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/laser/search_model.hpp>

#include "backward.hpp"
#include "batch.hpp"
#include "forward.hpp"
#include "model.hpp"

namespace llama {

/// What counts as one sample, right or wrong, with a log-loss.
enum class sample_kind {
    sequence,   ///< The mean NLL of a sequence's targets; never right, so that only the loss counts.
    token,      ///< Each token: right if it had the largest logit. Every token must have a target.
    last_token  ///< The last token of a sequence, which must have a target: the answer to a question.
};

struct searchable_options {
    sample_kind kind = sample_kind::sequence;
    lowrank::executor run = {};                      ///< Runs groups of sequences.
    std::size_t cache_bytes = std::size_t{1} << 30;  ///< For kept layer inputs.
    index group_tokens = 1024;                       ///< A pass works on about so many tokens at a time.
};

/// A model and a batch as lowrank's searches want them. Both must outlive it; the batch must fit the model (`check`).
/// Not for concurrent calls: it uses its own executor.
template <real S>
class searchable {
public:
    searchable(model<S>& m, const batch& b, searchable_options options = {})
        : model_(&m), batch_(&b), options_(std::move(options)) {
        first_sample_.push_back(0);
        for (index s = 0; s < b.sequences(); ++s) {
            first_sample_.push_back(first_sample_.back() +
                                    (options_.kind == sample_kind::token ? b.length(s) : index{1}));
        }
    }
    searchable(const searchable&) = delete;
    searchable& operator=(const searchable&) = delete;

    /// Samples of the first `sequences` sequences.
    [[nodiscard]] index samples_in(index sequences) const { return first_sample_[static_cast<std::size_t>(sequences)]; }

    /// The hooks, for the projections that `wanted` names (empty: all but lm_head). They refer to this object.
    [[nodiscard]] lowrank::search_model<S> hooks(const std::function<bool(const std::string&)>& wanted = {}) {
        lowrank::search_model<S> out;
        out.layers = static_cast<index>(model_->layers.size());
        numbers_.clear();
        index seen = 0;
        for_each_projection(*model_, [&](projection<S>& p) {
            const index layer = std::min(seen++ / 7, out.layers - 1);
            if (wanted ? wanted(p.name) : p.name != "lm_head") {
                numbers_[p.name] = static_cast<index>(out.weights.size());
                out.weights.push_back({p.name + ".weight", weight_view<S>(p.weight)});
                out.layer_of.push_back(layer);
            }
        });
        out.ask = [this](lowrank::sample_range r) { return score_from(r, 0); };
        out.ask_from = [this](lowrank::sample_range r, index first) { return score_from(r, first); };
        out.gradients = [this](lowrank::sample_range r, const lowrank::gradient_sink<S>& sink) {
            return gradients(r, sink);
        };
        return out;
    }

    /// Forgets kept layer inputs. \pre called after the weights were changed for good
    void forget() { kept_.clear(); }
    /// Bytes of kept layer inputs.
    [[nodiscard]] std::size_t cache_bytes() const {
        std::size_t sum = 0;
        for (const auto& [layer, inputs] : kept_) {
            for (const auto& x : inputs) {
                sum += static_cast<std::size_t>(x.size()) * sizeof(S);
            }
        }
        return sum;
    }

private:
    /// Numbers in groups of about `group_tokens` tokens.
    [[nodiscard]] std::vector<std::vector<index>> grouped(index first, index last) const {
        std::vector<std::vector<index>> groups;
        index tokens = 0;
        for (index s = first; s < last; ++s) {
            if (groups.empty() || tokens + batch_->length(s) > options_.group_tokens) {
                groups.emplace_back();
                tokens = 0;
            }
            groups.back().push_back(s);
            tokens += batch_->length(s);
        }
        return groups;
    }
    /// Sequences that hold samples of the range, in groups.
    [[nodiscard]] std::vector<std::vector<index>> groups_of(lowrank::sample_range r) const {
        index first = 0, last = batch_->sequences();
        while (first < last && samples_in(first + 1) <= r.begin) {
            ++first;
        }
        while (last > first && samples_in(last - 1) >= r.end) {
            --last;
        }
        return grouped(first, last);
    }

    [[nodiscard]] bool has(index layer, const std::vector<index>& sequences) const {
        const auto kept = kept_.find(layer);
        return kept != kept_.end() && std::all_of(sequences.begin(), sequences.end(), [&](index s) {
                   return kept->second[static_cast<std::size_t>(s)].size() > 0;
               });
    }

    /// The kept input of a layer for these sequences, which make up `b`.
    [[nodiscard]] matrix<S> gather(index layer, const std::vector<index>& sequences, const batch& b) const {
        matrix<S> x(model_->shape.hidden_size, b.size());
        for (std::size_t i = 0; i < sequences.size(); ++i) {
            x.middleCols(b.first(static_cast<index>(i)), b.length(static_cast<index>(i))) =
                kept_.at(layer)[static_cast<std::size_t>(sequences[i])];
        }
        return x;
    }

    /// Sees to it that the unedited inputs of layer `first` are kept for the sequences of the range, and of the layers
    /// below if all fit. Works on groups that are the same for every range, so that the bits do not depend on what was
    /// asked before.
    void keep_inputs(index first, lowrank::sample_range r) {
        const auto layers = static_cast<index>(model_->layers.size());
        const auto bytes = static_cast<std::size_t>(model_->shape.hidden_size * batch_->size()) * sizeof(S);
        const bool all = bytes * static_cast<std::size_t>(layers) <= options_.cache_bytes;
        for (index l = all ? 1 : first; l <= first; ++l) {
            kept_.try_emplace(l, static_cast<std::size_t>(batch_->sequences()));
        }
        std::vector<std::vector<index>> missing;
        for (auto& group : grouped(0, batch_->sequences())) {
            if (samples_in(group.back() + 1) > r.begin && samples_in(group.front()) < r.end && !has(first, group)) {
                missing.push_back(std::move(group));
            }
        }
        lowrank::parallel_for(options_.run, static_cast<index>(missing.size()), [&](index g) {
            const auto& group = missing[static_cast<std::size_t>(g)];
            const batch b = select(*batch_, group);
            workspace ws;
            index from = first;
            while (from > 0 && !has(from, group)) {
                --from;
            }
            matrix<S> x = from == 0 ? embed(*model_, b) : gather(from, group, b);
            for (index l = from + 1; l <= first; ++l) {
                x = forward_between(*model_, b, l - 1, l, std::move(x), ws);
                if (const auto place = kept_.find(l); place != kept_.end()) {
                    for (std::size_t i = 0; i < group.size(); ++i) {
                        place->second[static_cast<std::size_t>(group[i])] =
                            x.middleCols(b.first(static_cast<index>(i)), b.length(static_cast<index>(i)));
                    }
                }
            }
        });
        // Let go of the layers furthest from this one until the rest fits.
        const std::size_t room = std::max<std::size_t>(1, bytes > 0 ? options_.cache_bytes / bytes : 1);
        while (kept_.size() > room) {
            const auto low = kept_.begin(), high = std::prev(kept_.end());
            kept_.erase(first - low->first > high->first - first ? low : high);
        }
    }

    [[nodiscard]] lowrank::result<lowrank::sample_scores> score_from(lowrank::sample_range r, index first) {
        const auto groups = groups_of(r);
        std::vector<scores> parts(groups.size());
        if (first > 0) {
            keep_inputs(first, r);
        }
        lowrank::parallel_for(options_.run, static_cast<index>(groups.size()), [&](index g) {
            const auto at = static_cast<std::size_t>(g);
            const batch b = select(*batch_, groups[at]);
            workspace ws;
            matrix<S> x = first == 0 ? embed(*model_, b) : gather(first, groups[at], b);
            parts[at] = score(*model_, b, forward_from(*model_, b, first, std::move(x), ws), ws);
        });
        lowrank::sample_scores out;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            append(groups[g], parts[g], r, out);
        }
        return out;
    }

    void append(const std::vector<index>& sequences, const scores& part, lowrank::sample_range r,
                lowrank::sample_scores& out) const {
        std::size_t column = 0;
        for (std::size_t i = 0; i < sequences.size(); ++i) {
            const index s = sequences[i];
            const auto length = static_cast<std::size_t>(batch_->length(s));
            if (options_.kind == sample_kind::token) {
                for (std::size_t t = 0; t < length; ++t) {
                    const index sample = samples_in(s) + static_cast<index>(t);
                    if (sample >= r.begin && sample < r.end) {
                        out.add(part.top1[column + t], -part.log_probability[column + t]);
                    }
                }
            } else if (options_.kind == sample_kind::last_token) {
                out.add(part.top1[column + length - 1], -part.log_probability[column + length - 1]);
            } else {
                out.add(false,
                        part.sequence_nll[i] / static_cast<double>(std::max<index>(part.sequence_targets[i], 1)));
            }
            column += length;
        }
    }

    /// Groups of samples are sequences: their tokens meet in attention and cannot be told apart in one pass.
    [[nodiscard]] status gradients(lowrank::sample_range r, const lowrank::gradient_sink<S>& sink) const {
        tape<S> record;
        workspace ws;
        matrix<S> scaled;
        for (const auto& sequences : groups_of(r)) {
            const batch b = select(*batch_, sequences);
            (void)forward(*model_, b, ws, {.record = &record});
            backward_options<S> how;
            how.scale = 1;
            how.on_linear = [&](const std::string& name, const_column_view<S> x, const_column_view<S> dy) {
                const auto number = numbers_.find(name);
                if (number == numbers_.end() || dy.cols() != b.size()) {
                    return;  // lm_head is handed out without its sequences; a search by gradient leaves it alone
                }
                scaled = dy;
                for (index s = 0; s < b.sequences(); ++s) {
                    index targets = 0;
                    for (index i = b.first(s); i < b.first(s + 1); ++i) {
                        targets += b.targets[static_cast<std::size_t>(i)] >= 0 ? 1 : 0;
                    }
                    scaled.middleCols(b.first(s), b.length(s)) /= static_cast<S>(std::max<index>(targets, 1));
                }
                sink(number->second, x, scaled, b.starts);
            };
            const double nll = backward(*model_, b, record, ws, how);
            if (!lowrank::is_finite(nll)) {
                return {errc::non_finite, "the model's loss is not a number; a weight must be broken"};
            }
        }
        return {};
    }

    model<S>* model_;
    const batch* batch_;
    searchable_options options_;
    std::vector<index> first_sample_;
    std::map<std::string, index> numbers_ = {};
    std::map<index, std::vector<matrix<S>>> kept_ = {};  ///< Layer inputs of the unedited model, by sequence.
};

}  // namespace llama

#endif  // LLAMA_SEARCH_HOOKS_HPP

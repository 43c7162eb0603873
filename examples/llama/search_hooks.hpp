// SPDX-License-Identifier: MIT
#ifndef LLAMA_SEARCH_HOOKS_HPP
#define LLAMA_SEARCH_HOOKS_HPP

/// \file
/// What a search over edits asks of this engine: scores, re-runs from a layer on, gradients at every linear layer.
///
///     llama::searchable<float> engine(m, batch, {.kind = llama::sample_kind::sequence});
///     auto found = lowrank::gradient_search(engine.hooks(), {.validation = {0, 100}, .held_out = {100, 400}});
///
/// All groups of sequences go through a layer before the next one is touched, and all candidates of a rank scan with them:
/// a model that stays in its file (`mapped_model`) is read once for each pass.
///
/// Memory: the input of a layer, for all tokens of the batch, is hidden x tokens numbers. Inputs of as many layers as fit
/// `cache_bytes` are kept (at least one, and one more while a pass makes it); an edit in layer l then costs the layers
/// from l on. If the inputs of all layers fit, the pass of the unedited model leaves them all behind. States in flight,
/// one hidden x tokens for each candidate, take as much again: what does not fit goes through in parts, of one group at
/// least.

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
#include <lowrank/laser/search/search_model.hpp>

#include "backward.hpp"
#include "batch.hpp"
#include "forward.hpp"
#include "layer_by_ranks.hpp"
#include "mapped.hpp"
#include "model.hpp"
#include "workspace_pool.hpp"

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
    /// The same for a model in its file, whose weights are read and overridden, not written.
    searchable(mapped_model<S>& m, const batch& b, searchable_options options = {})
        : searchable(m.net(), b, std::move(options)) {
        mapped_ = &m;
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
        edited_.clear();
        index seen = 0;
        bool adapted = false;
        for_each_projection(*model_, [&](projection<S>& p) {
            const index layer = std::min(seen / 7, out.layers - 1);
            const bool head = seen++ / 7 >= out.layers;
            adapted = adapted || !p.adapters.empty();
            if (wanted ? wanted(p.name) : p.name != "lm_head") {
                numbers_[p.name] = static_cast<index>(out.weights.size());
                out.weights.push_back({p.name + ".weight", mapped_ == nullptr
                                                               ? weight_view<S>(p.weight)
                                                               : weight_view<S>(nullptr, p.rows(), p.cols())});
                out.layer_of.push_back(layer);
                edited_.push_back({p.name, layer, head ? -1 : (seen - 1) % 7});
            }
        });
        out.evaluate = [this](lowrank::sample_range r) { return score_from(r, 0); };
        out.evaluate_from_layer = [this](lowrank::sample_range r, index first) { return score_from(r, first); };
        out.gradients = [this](lowrank::sample_range r, const lowrank::gradient_sink<S>& sink) {
            return mapped_ == nullptr ? gradients(r, sink) : gradients_by_layer(r, sink);
        };
        if (!adapted) {
            out.evaluate_ranks = [this](lowrank::sample_range r, index weight, const lowrank::nested_ranks<S>& nested,
                                        index first) { return score_ranks(r, weight, nested, first); };
        }
        if (mapped_ != nullptr) {
            out.read = [this](index w) { return mapped_->read(edited_[static_cast<std::size_t>(w)].name); };
            out.override_weight = [this](index w, const lowrank::weight_override<S>* edit) {
                mapped_->override_weight(edited_[static_cast<std::size_t>(w)].name, edit);
            };
        }
        return out;
    }

    /// Forgets kept layer inputs. \pre called after the weights were changed permanently
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
        in_parts(missing, 1, [&](std::span<const std::vector<index>> part) {
            std::vector<index> from(part.size(), first);
            std::vector<state> states(part.size());
            run(part.size(), [&](std::size_t g) {
                while (from[g] > 0 && !has(from[g], part[g])) {
                    --from[g];
                }
                states[g] = start(part[g], from[g]);
            });
            for (index l = *std::min_element(from.begin(), from.end()); l < first; ++l) {
                const auto place = kept_.find(l + 1);
                run(part.size(), [&](std::size_t g) {
                    if (from[g] > l) {
                        return;
                    }
                    through(states[g], l);
                    if (place != kept_.end()) {
                        for (std::size_t i = 0; i < part[g].size(); ++i) {
                            place->second[static_cast<std::size_t>(part[g][i])] = states[g].x.middleCols(
                                states[g].b.first(static_cast<index>(i)), states[g].b.length(static_cast<index>(i)));
                        }
                    }
                });
                leave(l);
            }
        });
        // Let go of the layers furthest from this one until the rest fits.
        const std::size_t limit = std::max<std::size_t>(1, bytes > 0 ? options_.cache_bytes / bytes : 1);
        while (kept_.size() > limit) {
            const auto low = kept_.begin(), high = std::prev(kept_.end());
            kept_.erase(first - low->first > high->first - first ? low : high);
        }
    }

    /// Sequences of one group and where they are: the input of the next layer.
    struct state {
        batch b = {};
        matrix<S> x = {};
    };

    [[nodiscard]] state start(const std::vector<index>& group, index layer) const {
        state out{.b = select(*batch_, group)};
        if (layer > 0) {
            out.x = gather(layer, group, out.b);
        } else {
            out.x = mapped_ == nullptr ? embed(*model_, out.b) : mapped_->embed(out.b);
        }
        return out;
    }
    void through(state& s, index layer) const {
        const auto ws = scratch_.borrow();
        s.x = forward_between(*model_, s.b, layer, layer + 1, std::move(s.x), *ws);
    }
    /// After all work in a layer (the head: as many as there are layers).
    void leave(index layer) const {
        if (mapped_ != nullptr) {
            mapped_->release_layer(layer);
        }
    }
    template <class F>
    void run(std::size_t count, F&& body) const {
        lowrank::parallel_for(options_.run, static_cast<index>(count),
                              [&](index i) { body(static_cast<std::size_t>(i)); });
    }
    /// Groups whose states, `candidates` for each, fit `cache_bytes`; at least one at a time.
    template <class F>
    void in_parts(const std::vector<std::vector<index>>& groups, index candidates, F&& body) const {
        for (std::size_t begin = 0, end = 0; begin < groups.size(); begin = end) {
            std::size_t bytes = 0;
            while (end < groups.size() && (end == begin || bytes <= options_.cache_bytes)) {
                index tokens = 0;
                for (const index s : groups[end++]) {
                    tokens += batch_->length(s);
                }
                bytes += static_cast<std::size_t>(candidates * tokens * model_->shape.hidden_size) * sizeof(S);
            }
            end -= end > begin + 1 && bytes > options_.cache_bytes ? 1U : 0U;
            body(std::span(groups).subspan(begin, end - begin));
        }
    }

    /// Runs states from layer `first` to the end and scores each.
    [[nodiscard]] std::vector<scores> finish(std::vector<state>& states, index first) const {
        const auto layers = static_cast<index>(model_->layers.size());
        for (index l = first; l < layers; ++l) {
            run(states.size(), [&](std::size_t i) { through(states[i], l); });
            leave(l);
        }
        std::vector<scores> out(states.size());
        run(states.size(), [&](std::size_t i) {
            const auto ws = scratch_.borrow();
            out[i] = score(*model_, states[i].b, states[i].x, *ws);
        });
        leave(layers);
        return out;
    }

    [[nodiscard]] lowrank::result<lowrank::sample_scores> score_from(lowrank::sample_range r, index first) {
        if (first > 0) {
            keep_inputs(first, r);
        }
        lowrank::sample_scores out;
        in_parts(groups_of(r), 1, [&](std::span<const std::vector<index>> part) {
            std::vector<state> states(part.size());
            run(part.size(), [&](std::size_t g) { states[g] = start(part[g], first); });
            const auto scored = finish(states, first);
            for (std::size_t g = 0; g < part.size(); ++g) {
                append(part[g], scored[g], r, out);
            }
        });
        return out;
    }

    /// All ranks of one weight: what comes before it is run once, its products are nested, and what comes after it is
    /// run for all of them layer by layer.
    [[nodiscard]] lowrank::result<std::vector<lowrank::sample_scores>> score_ranks(
        lowrank::sample_range r, index weight, const lowrank::nested_ranks<S>& nested, index first) {
        const auto& edited = edited_[static_cast<std::size_t>(weight)];
        const auto candidates = static_cast<std::size_t>(nested.ranks().size());
        if (first > 0) {
            keep_inputs(first, r);
        }
        std::vector<lowrank::sample_scores> out(candidates);
        in_parts(groups_of(r), static_cast<index>(candidates) + 1, [&](std::span<const std::vector<index>> part) {
            std::vector<state> shared(part.size()), states(part.size() * candidates);
            std::vector<scores> scored(states.size());
            run(part.size(), [&](std::size_t g) { shared[g] = start(part[g], first); });
            const index last = edited.member < 0 ? static_cast<index>(model_->layers.size()) : edited.layer;
            for (index l = first; l < last; ++l) {
                run(part.size(), [&](std::size_t g) { through(shared[g], l); });
                leave(l);
            }
            if (edited.member < 0) {
                score_heads(part.size(), shared, nested, scored);
                leave(last);
            } else {
                constexpr projection<S> layer<S>::*members[] = {
                    &layer<S>::q_proj,    &layer<S>::k_proj,  &layer<S>::v_proj,   &layer<S>::o_proj,
                    &layer<S>::gate_proj, &layer<S>::up_proj, &layer<S>::down_proj};
                run(part.size(), [&](std::size_t g) {
                    const auto ws = scratch_.borrow();
                    layer_by_ranks(*model_, shared[g].b, last, members[edited.member], nested,
                                   const_column_view<S>(shared[g].x), *ws, [&](index i, const_column_view<S> y) {
                                       states[g * candidates + static_cast<std::size_t>(i)] = {shared[g].b, y};
                                   });
                    shared[g] = {};
                });
                leave(last);
                scored = finish(states, last + 1);
            }
            for (std::size_t g = 0; g < part.size(); ++g) {
                for (std::size_t i = 0; i < candidates; ++i) {
                    append(part[g], scored[g * candidates + i], r, out[i]);
                }
            }
        });
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

    /// The head at each rank; `scored` holds the candidates of one group side by side.
    void score_heads(std::size_t groups, const std::vector<state>& states, const lowrank::nested_ranks<S>& nested,
                     std::vector<scores>& scored) const {
        const auto candidates = nested.ranks().size();
        const auto own = model_->lm_head.base;
        const auto own_map = model_->lm_head.base_map();
        for (std::size_t i = 0; i < candidates; ++i) {
            const auto edit =
                lowrank::override_by_components(nested.factors(), lowrank::component_set::first(nested.ranks()[i]));
            model_->lm_head.base =
                edit.additive
                    ? lowrank::any_operator<S>(lowrank::operator_sum<S>({{.map = own_map}, {.map = edit.map}}))
                    : edit.map;
            run(groups, [&](std::size_t g) {
                const auto ws = scratch_.borrow();
                scored[g * candidates + i] = score(*model_, states[g].b, states[g].x, *ws);
            });
        }
        model_->lm_head.base = own;
    }

    /// What the sink gets of a projection: of each sequence the gradient of its own mean loss.
    [[nodiscard]] linear_hook<S> hook(const batch& b, const lowrank::gradient_sink<S>& sink, matrix<S>& scaled) const {
        return [this, &b, &sink, &scaled](const std::string& name, const_column_view<S> x, const_column_view<S> dy) {
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
    }
    static status broken_loss() {
        return {errc::non_finite, "the model's loss is not a number; a weight must be broken"};
    }

    /// Groups of samples are sequences: their tokens interact in attention, so one pass cannot separate them.
    [[nodiscard]] status gradients(lowrank::sample_range r, const lowrank::gradient_sink<S>& sink) const {
        tape<S> record;
        workspace ws;
        matrix<S> scaled;
        for (const auto& sequences : groups_of(r)) {
            const batch b = select(*batch_, sequences);
            (void)forward(*model_, b, ws, {.record = &record});
            const double nll = backward(*model_, b, record, ws, {.on_linear = hook(b, sink, scaled), .scale = 1});
            if (!lowrank::is_finite(nll)) {
                return broken_loss();
            }
        }
        return {};
    }

    /// The same with the inputs of the layers instead of a tape: each layer is run forward twice, and all groups pass
    /// it before the next is touched. Memory: layers + 1 states for each group of a part.
    [[nodiscard]] status gradients_by_layer(lowrank::sample_range r, const lowrank::gradient_sink<S>& sink) const {
        const auto layers = static_cast<index>(model_->layers.size());
        status why = {};
        in_parts(groups_of(r), layers + 2, [&](std::span<const std::vector<index>> part) {
            if (!why) {
                return;
            }
            std::vector<state> states(part.size());
            std::vector<std::vector<matrix<S>>> inputs(part.size());
            run(part.size(), [&](std::size_t g) { states[g] = start(part[g], 0); });
            for (index l = 0; l < layers; ++l) {
                run(part.size(), [&](std::size_t g) {
                    inputs[g].push_back(states[g].x);
                    through(states[g], l);
                });
                leave(l);
            }
            std::vector<double> nll(part.size());
            run(part.size(), [&](std::size_t g) {
                const auto ws = scratch_.borrow();
                matrix<S> dx;
                nll[g] = head_gradient<S>(*model_, states[g].b, states[g].x, dx, *ws, {.scale = 1});
                states[g].x = std::move(dx);
            });
            leave(layers);
            const auto ws = scratch_.borrow();
            tape<S> record;
            matrix<S> scaled;
            for (index l = layers; l-- > 0;) {
                for (std::size_t g = 0; g < part.size(); ++g) {
                    state& s = states[g];
                    (void)forward_between(*model_, s.b, l, l + 1, std::move(inputs[g][static_cast<std::size_t>(l)]),
                                          *ws, {.record = &record});
                    backward_between<S>(*model_, s.b, record, l, l + 1, s.x, *ws,
                                        {.on_linear = hook(s.b, sink, scaled), .scale = 1});
                    record.layers[static_cast<std::size_t>(l)] = {};
                }
                leave(l);
            }
            for (const double x : nll) {
                why = lowrank::is_finite(x) ? why : broken_loss();
            }
        });
        return why;
    }

    /// A projection that may be edited: its layer, and which of the seven it is; -1: the head.
    struct edited_projection {
        std::string name;
        index layer = 0;
        index member = 0;
    };

    model<S>* model_;
    mapped_model<S>* mapped_ = nullptr;
    const batch* batch_;
    searchable_options options_;
    std::vector<index> first_sample_;
    std::map<std::string, index> numbers_ = {};
    std::vector<edited_projection> edited_ = {};
    mutable workspace_pool scratch_ = {};
    std::map<index, std::vector<matrix<S>>> kept_ = {};  ///< Layer inputs of the unedited model, by sequence.
};

}  // namespace llama

#endif  // LLAMA_SEARCH_HOOKS_HPP

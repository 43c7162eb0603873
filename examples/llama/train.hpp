// SPDX-License-Identifier: MIT
#ifndef LLAMA_TRAIN_HPP
#define LLAMA_TRAIN_HPP

/// \file
/// Training on next-token loss: adapters on frozen weights, or all weights of a small model from scratch.
///
///     auto done = llama::finetune(m, token_ids, {.lora = {.r = 4, .lora_alpha = 8}});
///     if (!done) return report(done.error().message);
///     save(done->adapters);                            // and m now carries them
///
/// AdamW, linear warmup, cosine decay, gradients clipped by their common norm. A step's batch is cut into groups of
/// about `group_tokens`; groups run on the executor and are summed in order, so the result is a function of data,
/// options and seed (bit-equal for one binary and CPU), whatever the executor.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/lora/adamw.hpp>

#include "adapters.hpp"
#include "backward.hpp"

namespace llama {

struct training_options {
    index steps = 300;
    double learning_rate = 1e-2;  ///< At its peak.
    double warmup_share = 0.05;   ///< Of the steps, rising linearly to the peak.
    double final_share = 0.05;    ///< Of the peak, reached by a cosine at the last step.
    double beta1 = 0.9;
    double beta2 = 0.99;
    double epsilon = 1e-8;
    double weight_decay = 0;
    double clip_norm = 1;                         ///< Longest the gradient of all parameters may be; 0 does not clip.
    index group_tokens = 1024;                    ///< Tokens that go through the model together.
    std::uint64_t seed = 0;                       ///< Of dropout, initial adapters and the choice of windows.
    lowrank::progress_callback on_progress = {};  ///< Once per step; `what` states step, loss and learning rate.
    lowrank::executor run = {};                   ///< Runs the groups of a step.
};

struct training_report {
    std::vector<double> loss = {};  ///< Mean NLL of each step's batch, before its update.
    index tokens = 0;               ///< Targets seen in all.
};

/// The batch of a step. A function of the step alone makes training reproducible.
using batch_source = std::function<batch(index step)>;

/// Peak rate times warmup or cosine, for step in [0, steps).
[[nodiscard]] inline double learning_rate_at(const training_options& o, index step) {
    const double warmup = std::max(1.0, std::round(o.warmup_share * static_cast<double>(o.steps)));
    const auto at = static_cast<double>(step);
    if (at < warmup) {
        return o.learning_rate * (at + 1) / (warmup + 1);
    }
    const double rest = std::max(1.0, static_cast<double>(o.steps - 1) - warmup);
    const double cosine = (1 + std::cos(std::numbers::pi * std::min(1.0, (at - warmup) / rest))) / 2;
    return o.learning_rate * (o.final_share + (1 - o.final_share) * cosine);
}

namespace detail {

/// One group's pass: its memory and its share of the gradient.
template <real S>
struct training_worker {
    workspace ws = {};
    tape<S> record = {};
    adapter_gradients<S> adapters = {};
    std::optional<model<S>> weights = {};
    std::vector<std::span<S>> gradients = {};  ///< Into `adapters` or `weights`, in the order of the parameters.
    double nll = 0;

    void zero() {
        for (const auto& g : gradients) {
            std::ranges::fill(g, S(0));
        }
    }
};

[[nodiscard]] inline status check(const training_options& o) {
    const auto in = [](double x, double low, double high) { return low <= x && x <= high; };
    if (o.steps < 1 || o.group_tokens < 1) {
        return {errc::mismatch, "training needs at least one step and groups of at least one token"};
    }
    if (!(o.learning_rate > 0 && o.learning_rate < 1e3) || !in(o.warmup_share, 0, 1) || !in(o.final_share, 0, 1) ||
        !in(o.beta1, 0, 0.9999999) || !in(o.beta2, 0, 0.9999999) || !(o.epsilon > 0) || !in(o.weight_decay, 0, 1e3) ||
        !in(o.clip_norm, 0, 1e30)) {
        return {errc::mismatch,
                "training: the learning rate must be positive, the shares in [0, 1], the betas in [0, 1), epsilon "
                "positive, weight decay and clip norm not negative"};
    }
    return {};
}

/// The loop that both kinds of training share. `make` fills a worker's gradients for these parameters.
template <real S, class Make>
[[nodiscard]] result<training_report> train(const model<S>& m, const std::vector<std::span<S>>& parameters, Make&& make,
                                            const batch_source& next, const training_options& o) {
    training_report report;
    std::vector<std::unique_ptr<training_worker<S>>> workers;
    std::vector<lowrank::trainable<S>> list;  // each parameter with its gradient in the first worker
    lowrank::adamw_state<S> state;
    lowrank::adamw_options adamw{.beta1 = o.beta1, .beta2 = o.beta2, .epsilon = o.epsilon};
    for (index step = 0; step < o.steps; ++step) {
        const batch whole = next(step);
        if (status why = llama::check(whole, m.shape); !why) {
            return why;
        }
        const index targets = whole.target_count();
        if (targets == 0) {
            return status{errc::mismatch, "training: a batch without targets has nothing to learn from"};
        }
        const std::vector<batch> groups = split(whole, o.group_tokens);
        while (workers.size() < groups.size()) {
            workers.push_back(std::make_unique<training_worker<S>>());
            make(*workers.back());
        }
        if (list.empty()) {
            for (std::size_t p = 0; p < parameters.size(); ++p) {
                list.push_back({.value = parameters[p], .gradient = workers.front()->gradients[p]});
            }
            state = lowrank::make_adamw_state(list);
        }
        std::vector<index> first_column(groups.size(), 0);
        for (std::size_t g = 1; g < groups.size(); ++g) {
            first_column[g] = first_column[g - 1] + groups[g - 1].size();
        }
        lowrank::parallel_for(o.run, static_cast<index>(groups.size()), [&](index number) {
            const auto g = static_cast<std::size_t>(number);
            training_worker<S>& w = *workers[g];
            const dropout_step dropout{
                .seed = o.seed, .step = static_cast<std::uint64_t>(step), .first_column = first_column[g]};
            w.zero();
            (void)forward<S>(m, groups[g], w.ws, {.record = &w.record, .dropout = &dropout});
            w.nll = backward<S>(m, groups[g], w.record, w.ws,
                                {.adapters = w.weights ? nullptr : &w.adapters,
                                 .gradients = w.weights ? &*w.weights : nullptr,
                                 .dropout = &dropout,
                                 .scale = 1 / static_cast<double>(targets)});
        });
        double loss = 0;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            loss += workers[g]->nll / static_cast<double>(targets);
        }
        for (std::size_t g = 1; g < groups.size(); ++g) {
            for (std::size_t p = 0; p < list.size(); ++p) {
                std::ranges::transform(list[p].gradient, workers[g]->gradients[p], list[p].gradient.begin(),
                                       std::plus<>());
            }
        }
        const double norm = o.clip_norm > 0 ? lowrank::clip_gradients(list, o.clip_norm) : lowrank::gradient_norm(list);
        if (!lowrank::is_finite(loss) || !lowrank::is_finite(norm)) {
            return status{errc::non_finite, "training: the loss is not a number after " + std::to_string(step) +
                                                " steps; use a smaller learning rate"};
        }
        const double rate = learning_rate_at(o, step);
        adamw.groups = {{.learning_rate = rate, .weight_decay = o.weight_decay}};
        lowrank::adamw_step(list, state, adamw);
        report.loss.push_back(loss);
        report.tokens += targets;
        char text[96];
        std::snprintf(text, sizeof text, "step %td of %td, loss %.4f, rate %.2e", step + 1, o.steps, loss, rate);
        if (!lowrank::report(o.on_progress, {.done = step + 1, .total = o.steps, .what = text})) {
            return status{errc::cancelled, "training was cancelled after " + std::to_string(step + 1) + " steps"};
        }
    }
    return report;
}

}  // namespace detail

/// Trains all weights of `m` on the batches of `next`. On failure or cancellation `m` is as it was.
/// \return mismatch for options or batches that do not fit, or adapters in place; non_finite if the loss diverges;
///         cancelled.
template <real S>
[[nodiscard]] result<training_report> train_weights(model<S>& m, const batch_source& next,
                                                    const training_options& options = {}) {
    if (status why = detail::check(options); !why) {
        return why;
    }
    status why = {};
    for_each_projection(m, [&](const projection<S>& p) {
        if (p.base || !p.adapters.empty()) {
            why = {errc::mismatch, p.name + " has an adapter or a replaced base; training all weights needs neither"};
        }
    });
    if (!why) {
        return why;
    }
    const auto spans_of = [](model<S>& x) {
        std::vector<std::span<S>> spans;
        for_each_weight(x, [&](const std::string&, weight_view<S> w) {
            spans.emplace_back(w.data(), static_cast<std::size_t>(w.size()));
        });
        return spans;
    };
    model<S> trained = m;
    const auto make = [&](detail::training_worker<S>& w) {
        w.weights = zero_model<S>(m.shape);
        w.gradients = spans_of(*w.weights);
    };
    auto report = detail::train<S>(trained, spans_of(trained), make, next, options);
    if (report) {
        m = std::move(trained);
    }
    return report;
}

/// The seven projections of a layer, as `target_modules` names them.
[[nodiscard]] inline std::vector<std::string> all_projections() {
    return {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
}

struct finetune_options {
    lowrank::lora_options lora = {.r = 4, .lora_alpha = 8};       ///< `seed` and `stream` are set per projection.
    std::vector<std::string> target_modules = all_projections();  ///< Module paths, or their ends.
    index window = 256;                                           ///< Tokens of a training sequence.
    index sequences = 8;                                          ///< Of a step.
    training_options training = {};
};

template <real S>
struct finetune_result {
    std::map<std::string, lowrank::lora_adapter<S>> adapters = {};  ///< By module path.
    training_report report = {};
};

/// Trains one new adapter on each target projection of `m` and leaves them attached. Adapters that were there stay and
/// are frozen. On failure or cancellation `m` is as it was.
/// \return not_found if a target names no projection; otherwise as train_weights.
template <real S>
[[nodiscard]] result<finetune_result<S>> train_adapters(model<S>& m, const batch_source& next,
                                                        const finetune_options& options = {}) {
    if (status why = detail::check(options.training); !why) {
        return why;
    }
    if (options.lora.r < 1 || !(options.lora.lora_dropout >= 0 && options.lora.lora_dropout < 1)) {
        return status{errc::mismatch, "training: the rank must be at least 1 and lora_dropout in [0, 1)"};
    }
    std::vector<projection<S>*> chosen;
    std::vector<bool> used(options.target_modules.size(), false);
    for_each_projection(m, [&](projection<S>& p) {
        bool wanted = false;
        for (std::size_t i = 0; i < options.target_modules.size(); ++i) {
            const std::string& target = options.target_modules[i];
            if (p.name == target || p.name.ends_with("." + target)) {
                wanted = used[i] = true;
            }
        }
        if (wanted) {
            chosen.push_back(&p);
        }
    });
    for (std::size_t i = 0; i < used.size(); ++i) {
        if (!used[i]) {
            return status{errc::not_found, "training: the model has no projection named " + options.target_modules[i]};
        }
    }
    if (chosen.empty()) {
        return status{errc::not_found, "training: no target modules were given"};
    }
    std::vector<std::shared_ptr<lowrank::lora_adapter<S>>> adapters;
    std::vector<std::span<S>> parameters;
    const auto span_of = [](matrix<S>& x) { return std::span<S>(x.data(), static_cast<std::size_t>(x.size())); };
    for (projection<S>* p : chosen) {
        lowrank::lora_options lora = options.lora;
        lora.seed = options.training.seed;
        lora.stream = p->number;
        adapters.push_back(
            std::make_shared<lowrank::lora_adapter<S>>(lowrank::make_lora<S>(p->rows(), p->cols(), lora)));
        parameters.push_back(span_of(adapters.back()->lora_A));
        parameters.push_back(span_of(adapters.back()->lora_B));
        p->adapters.push_back({.adapter = adapters.back()});
    }
    const auto make = [&](detail::training_worker<S>& w) {
        for (const auto& adapter : adapters) {
            auto& gradient = w.adapters.emplace(adapter.get(), lowrank::zero_gradient(*adapter)).first->second;
            w.gradients.push_back(span_of(gradient.lora_A));
            w.gradients.push_back(span_of(gradient.lora_B));
        }
    };
    auto report = detail::train<S>(m, parameters, make, next, options.training);
    if (!report) {
        for (projection<S>* p : chosen) {
            p->adapters.pop_back();
        }
        return report.error();
    }
    finetune_result<S> out{.report = std::move(*report)};
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        out.adapters.emplace(chosen[i]->name, *adapters[i]);
    }
    return out;
}

/// Batches of `sequences` windows of `window` tokens from random places of `stream`, each started by `bos`.
/// \pre window >= 1, sequences >= 1, stream not empty and alive while the source is used.
/// \note A function of seed and step.
[[nodiscard]] inline batch_source random_windows(std::span<const int> stream, index window, index sequences, int bos,
                                                 std::uint64_t seed) {
    lowrank::detail::expects(window >= 1 && sequences >= 1 && !stream.empty(),
                             "random_windows: needs tokens, and windows of at least one");
    return [=](index step) {
        const lowrank::philox rng(seed, 0x77696e646f7773ULL);  // a stream of its own
        const auto length = std::min(static_cast<std::size_t>(window), stream.size());
        batch b;
        for (index s = 0; s < sequences; ++s) {
            const auto at = rng.below(stream.size() - length + 1, static_cast<std::uint64_t>(step * sequences + s));
            b.append_next_token(stream.subspan(static_cast<std::size_t>(at), length), bos);
        }
        return b;
    };
}

/// Trains adapters on a stream of tokens: `train_adapters` on random windows.
/// \return mismatch if the stream is empty or a window longer than the model's positions; otherwise as train_adapters.
template <real S>
[[nodiscard]] result<finetune_result<S>> finetune(model<S>& m, std::span<const int> stream,
                                                  const finetune_options& options = {}) {
    if (stream.empty() || options.window < 1 || options.sequences < 1) {
        return status{errc::mismatch, "training needs some tokens, and windows and batches of at least one"};
    }
    if (options.window > m.shape.max_position_embeddings) {
        return status{errc::mismatch, "training: windows of " + std::to_string(options.window) +
                                          " tokens do not fit the model's " +
                                          std::to_string(m.shape.max_position_embeddings) + " positions"};
    }
    const auto next =
        random_windows(stream, options.window, options.sequences, m.shape.bos_token_id, options.training.seed);
    return train_adapters<S>(m, next, options);
}

}  // namespace llama

#endif  // LLAMA_TRAIN_HPP

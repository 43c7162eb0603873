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
/// Any kind of adapter: `{.kind = "rslora"}`. AdamW, linear warmup, cosine decay, gradients clipped by
/// their common norm, and what `lowrank::trainer` offers besides. A step's batch is cut into groups of about
/// `group_tokens`; groups run on the executor and are summed in order, so the result is a function of data, options and
/// seed (bit-equal for one binary and CPU), whatever the executor.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/lora/train/adamw.hpp>
#include <lowrank/lora/train/schedule.hpp>
#include <lowrank/lora/train/trainer.hpp>

#include "adapters.hpp"
#include "backward.hpp"
#include "contract.hpp"
#include "variants.hpp"

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
    double lora_plus_ratio = 1;                   ///< Adapters: rate of lora_B and of vectors over the others' (LoRA+).
    bool freeze_lora_A = false;                   ///< Adapters: LoRA-FA.
    double riemannian_delta = 0;                  ///< Adapters: positive preconditions LoRA's gradients.
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

/// Linear warmup, then a cosine down to the last share.
[[nodiscard]] inline lowrank::learning_rate_schedule schedule_of(const training_options& o) {
    const double warmup = std::max(1.0, std::round(o.warmup_share * static_cast<double>(o.steps)));
    return {.kind = lowrank::decay::cosine,
            .steps = o.steps,
            .warmup_steps = static_cast<index>(warmup),
            .final_share = o.final_share};
}

/// Peak rate times warmup or cosine, for step in [0, steps).
[[nodiscard]] inline double learning_rate_at(const training_options& o, index step) {
    return o.learning_rate * lowrank::learning_rate_share(schedule_of(o), step);
}

namespace detail {

/// One group's pass: its memory and its share of the gradient.
template <real S, class Gradient>
struct training_worker {
    explicit training_worker(Gradient zero) : gradient(std::move(zero)) {}

    workspace ws = {};
    tape<S> record = {};
    Gradient gradient;
    double nll = 0;
};

/// Learns all weights of a model with AdamW.
template <real S>
class weight_learner {
public:
    using gradient = model<S>;

    weight_learner(model<S>& m, const training_options& o) : model_(m), options_(o), sum_(zero_model<S>(m.shape)) {
        const auto values = spans_of(m);
        const auto gradients = spans_of(sum_);
        for (std::size_t i = 0; i < values.size(); ++i) {
            list_.push_back({.value = values[i], .gradient = gradients[i]});
        }
        state_ = lowrank::make_adamw_state(list_);
    }

    [[nodiscard]] gradient zero_gradient() const { return zero_model<S>(model_.shape); }
    static void set_zero(gradient& g) {
        for (const auto& part : spans_of(g)) {
            std::ranges::fill(part, S(0));
        }
    }
    static backward_options<S> options_for(gradient& g) { return {.gradients = &g}; }
    static void add(gradient& to, gradient& from) {
        const auto more = spans_of(from);
        std::size_t i = 0;
        for (const auto& part : spans_of(to)) {
            std::ranges::transform(part, more[i++], part.begin(), std::plus<>());
        }
    }
    /// One update; false if the gradient is not a number.
    bool update(gradient& g, double rate) {
        set_zero(sum_);
        add(sum_, g);
        const double norm =
            options_.clip_norm > 0 ? lowrank::clip_gradients(list_, options_.clip_norm) : lowrank::gradient_norm(list_);
        if (!lowrank::is_finite(norm)) {
            return false;
        }
        lowrank::adamw_step(list_, state_,
                            {.groups = {{.learning_rate = rate, .weight_decay = options_.weight_decay}},
                             .beta1 = options_.beta1,
                             .beta2 = options_.beta2,
                             .epsilon = options_.epsilon});
        return true;
    }

private:
    static std::vector<std::span<S>> spans_of(model<S>& x) {
        std::vector<std::span<S>> spans;
        for_each_weight(x, [&](const std::string&, weight_view<S> w) {
            spans.emplace_back(w.data(), static_cast<std::size_t>(w.size()));
        });
        return spans;
    }

    model<S>& model_;
    const training_options& options_;
    model<S> sum_;
    std::vector<lowrank::trainable<S>> list_ = {};
    lowrank::adamw_state<S> state_ = {};
};

/// Learns adapters with the library's trainer.
template <real S>
class adapter_learner {
public:
    using gradient = adapter_gradients<S>;

    explicit adapter_learner(lowrank::trainer<S>& t) : trainer_(t) {}

    [[nodiscard]] gradient zero_gradient() const {
        gradient g;
        for (index i = 0; i < trainer_.size(); ++i) {
            g.emplace(&trainer_.adapter(i), trainer_.adapter(i).zero_gradient());
        }
        return g;
    }
    static void set_zero(gradient& g) {
        for (auto& [adapter, part] : g) {
            part.set_zero();
        }
    }
    static backward_options<S> options_for(gradient& g) { return {.adapters = &g}; }
    static void add(gradient& to, gradient& from) {
        for (auto& [adapter, part] : to) {
            part.add(from.at(adapter));
        }
    }
    bool update(gradient& g, double /*rate*/) {
        for (index i = 0; i < trainer_.size(); ++i) {
            trainer_.accumulate(i, g.at(&trainer_.adapter(i)));
        }
        return trainer_.step().has_value();
    }

private:
    lowrank::trainer<S>& trainer_;
};

[[nodiscard]] inline status check(const training_options& o) {
    const auto in = [](double x, double low, double high) { return low <= x && x <= high; };
    if (o.steps < 1 || o.group_tokens < 1) {
        return {errc::mismatch, "training needs at least one step and groups of at least one token"};
    }
    if (!(o.learning_rate > 0 && o.learning_rate < 1e3) || !in(o.warmup_share, 0, 1) || !in(o.final_share, 0, 1) ||
        !in(o.beta1, 0, 0.9999999) || !in(o.beta2, 0, 0.9999999) || !(o.epsilon > 0) || !in(o.weight_decay, 0, 1e3) ||
        !in(o.clip_norm, 0, 1e30) || !(o.lora_plus_ratio > 0) || !in(o.riemannian_delta, 0, 1e30)) {
        return {errc::mismatch,
                "training: the learning rate must be positive, the shares in [0, 1], the betas in [0, 1), epsilon "
                "positive, the LoRA+ ratio positive, weight decay, clip norm and delta not negative"};
    }
    if (o.freeze_lora_A && o.riemannian_delta > 0) {
        return {errc::mismatch, "training: choose one of LoRA-FA and Riemannian preconditioning"};
    }
    return {};
}

/// The loop that both kinds of training share.
template <real S, class Learner>
[[nodiscard]] result<training_report> train(const model<S>& m, Learner& learner, const batch_source& next,
                                            const training_options& o) {
    using worker = training_worker<S, typename Learner::gradient>;
    training_report report;
    std::vector<std::unique_ptr<worker>> workers;
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
            workers.push_back(std::make_unique<worker>(learner.zero_gradient()));
        }
        std::vector<index> first_column(groups.size(), 0);
        for (std::size_t g = 1; g < groups.size(); ++g) {
            first_column[g] = first_column[g - 1] + groups[g - 1].size();
        }
        lowrank::parallel_for(o.run, static_cast<index>(groups.size()), [&](index number) {
            const auto g = static_cast<std::size_t>(number);
            worker& w = *workers[g];
            const dropout_step dropout{
                .seed = o.seed, .step = static_cast<std::uint64_t>(step), .first_column = first_column[g]};
            Learner::set_zero(w.gradient);
            (void)forward<S>(m, groups[g], w.ws, {.record = &w.record, .dropout = &dropout});
            backward_options<S> how = Learner::options_for(w.gradient);
            how.dropout = &dropout;
            how.scale = 1 / static_cast<double>(targets);
            w.nll = backward<S>(m, groups[g], w.record, w.ws, how);
        });
        double loss = 0;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            loss += workers[g]->nll / static_cast<double>(targets);
        }
        for (std::size_t g = 1; g < groups.size(); ++g) {
            Learner::add(workers.front()->gradient, workers[g]->gradient);
        }
        const double rate = learning_rate_at(o, step);
        if (!lowrank::is_finite(loss) || !learner.update(workers.front()->gradient, rate)) {
            return status{errc::non_finite, "training: the loss is not a number after " + std::to_string(step) +
                                                " steps; use a smaller learning rate"};
        }
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
    model<S> trained = m;
    detail::weight_learner<S> learner(trained, options);
    auto report = detail::train<S>(trained, learner, next, options);
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
    std::string kind = "lora";                                    ///< See variants.hpp.
    lowrank::lora_options lora = {.r = 4, .lora_alpha = 8};       ///< `seed` and `stream` are set per projection.
    std::vector<std::string> target_modules = all_projections();  ///< Module paths, or their ends.
    index window = 256;                                           ///< Tokens of a training sequence.
    index sequences = 8;                                          ///< Of a step.
    training_options training = {};
    /// For kinds that allocate ranks: from `lora.r` to target_r, if total_step is set.
    lowrank::adalora_schedule adalora = {};
    double orth_reg_weight = 0.5;  ///< Of the orthogonality loss then.
};

template <real S>
struct finetune_result {
    std::map<std::string, lowrank::lora_adapter<S>> adapters = {};  ///< By module path; empty unless plain LoRA.
    adapter_operator<S> modules = {};                               ///< The same for every kind.
    training_report report = {};
    std::map<std::string, std::vector<bool>> kept = {};  ///< With `adalora`: which triplets a module has kept.
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
    if (const auto& a = options.adalora;
        a.total_step > 0 && (find_variant(options.kind) == nullptr || !find_variant(options.kind)->allocates_ranks ||
                             a.target_r > options.lora.r || a.deltaT < 1 || a.tinit < 0 || a.tfinal < 0 ||
                             a.tinit >= a.total_step - a.tfinal)) {
        return status{errc::mismatch,
                      "training: the allocation of ranks needs a kind that has them, target_r <= r and tinit < "
                      "total_step - tfinal"};
    }
    lowrank::lora_options lora = options.lora;
    lora.seed = options.training.seed;
    const auto make = adapter_maker<S>(m, options.kind, lora);
    if (!make) {
        return make.error();
    }
    const training_options& o = options.training;
    lowrank::trainer<S> trainer({.learning_rate = o.learning_rate,
                                 .schedule = schedule_of(o),
                                 .weight_decay = o.weight_decay,
                                 .beta1 = o.beta1,
                                 .beta2 = o.beta2,
                                 .epsilon = o.epsilon,
                                 .lora_plus_ratio = o.lora_plus_ratio,
                                 .freeze_lora_A = o.freeze_lora_A,
                                 .riemannian_delta = o.riemannian_delta,
                                 .clip_norm = o.clip_norm,
                                 .adalora = options.adalora,
                                 .orth_reg_weight = options.orth_reg_weight});
    for (projection<S>* p : chosen) {
        const index number = trainer.add(p->name, (*make)(*p), p->base_map());
        p->adapters.push_back({.adapter = trainer.share(number)});
    }
    detail::adapter_learner<S> learner(trainer);
    auto report = detail::train<S>(m, learner, next, options.training);
    if (!report) {
        for (projection<S>* p : chosen) {
            p->adapters.pop_back();
        }
        return report.error();
    }
    finetune_result<S> out{.report = std::move(*report)};
    for (index i = 0; i < trainer.size(); ++i) {
        if (options.adalora.total_step > 0) {
            const auto& keep = out.kept[trainer.name(i)] = trainer.kept_triplets(i);
            out.modules.emplace(
                trainer.name(i),
                lowrank::keep_triplets(*trainer.adapter(i).template get<lowrank::adalora_adapter<S>>(), keep));
            continue;
        }
        out.modules.emplace(trainer.name(i), trainer.adapter(i));
        if (const auto* plain = trainer.adapter(i).template get<lowrank::lora_adapter<S>>()) {
            out.adapters.emplace(trainer.name(i), *plain);
        }
    }
    return out;
}

/// Batches of `sequences` windows of `window` tokens from random places of `stream`, each started by `bos`.
/// \pre window >= 1, sequences >= 1, stream not empty and alive while the source is used.
/// \note A function of seed and step.
[[nodiscard]] inline batch_source random_windows(std::span<const int> stream, index window, index sequences, int bos,
                                                 std::uint64_t seed) {
    expects(window >= 1 && sequences >= 1 && !stream.empty(),
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

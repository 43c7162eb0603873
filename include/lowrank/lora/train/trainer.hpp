// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_TRAINER_HPP
#define LOWRANK_LORA_TRAIN_TRAINER_HPP

/// \file
/// Training of adapters of any kind: gradients in, one update out, and a state that can be saved and resumed.
///
///     lowrank::trainer<float> trainer({.learning_rate = 1e-2, .clip_norm = 1});
///     const auto layer = trainer.add("q_proj", lowrank::make_dora(w, {.r = 8}), lowrank::as_operator(w));
///     auto gradient = trainer.adapter(layer).zero_gradient();
///     trainer.adapter(layer).backward(lowrank::as_operator(w), 1.0F, x, dy, gradient, nullptr, ws);
///     trainer.accumulate(layer, gradient);             // as often as there are layers and micro-batches
///     auto done = trainer.step();                      // clip, precondition, update, refresh
///
/// AdamW or SGD; LoRA+ (rate of B), LoRA-FA (A frozen), Riemannian preconditioning; schedules; decay by group. All of
/// it exists as free functions too: adamw.hpp, sgd.hpp, precondition.hpp, schedule.hpp.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/init/precondition.hpp>
#include <lowrank/lora/train/adalora_allocator.hpp>
#include <lowrank/lora/train/adamw.hpp>
#include <lowrank/lora/train/detail/adalora_steps.hpp>
#include <lowrank/lora/train/schedule.hpp>
#include <lowrank/lora/train/sgd.hpp>
#include <lowrank/lora/train/trainable.hpp>

namespace lowrank::inline LOWRANK_ABI {

enum class optimizer_kind { adamw, sgd };

/// How a trainer updates.
struct trainer_options {
    optimizer_kind optimizer = optimizer_kind::adamw;
    double learning_rate = 1e-3;  ///< At its peak.
    learning_rate_schedule schedule = {};
    double weight_decay = 0;     ///< Decoupled for AdamW, in the gradient for SGD.
    bool decay_vectors = false;  ///< Vectors (scales, magnitudes) decay like matrices.
    double beta1 = 0.9;          ///< Of AdamW.
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double momentum = 0;  ///< Of SGD.
    bool nesterov = false;
    double lora_plus_ratio = 1;  ///< LoRA+: rate of lora_B and of vectors, over that of everything else.
    bool freeze_lora_A =
        false;  ///< LoRA-FA: A of kinds with LoRA in them does not train, the gradient of B is corrected.
    double riemannian_delta = 0;  ///< Positive: gradients of the factors of LoRA are preconditioned with it.
    double clip_norm = 0;         ///< Longest the gradient of everything may be; 0 does not clip.
    /// AdaLoRA's rank allocation, if total_step is set; then every adapter must be AdaLoRA.
    adalora_schedule adalora = {};
    double orth_reg_weight = 0.5;  ///< Of AdaLoRA's orthogonality loss, while ranks are allocated.
};

/// One update that was made.
struct training_step {
    std::int64_t number = 0;   ///< Counted from 1.
    double learning_rate = 0;  ///< The one used.
    double gradient_norm = 0;  ///< Before clipping.
};

/// Everything a run needs to go on, by name: parameters, moments, counters. Write it with any container of tensors.
template <real S>
struct trainer_state {
    std::map<std::string, vector<S>> tensors = {};
    std::map<std::string, std::string> facts = {};
};

/// Trains a list of adapters together. A parameter that several of them share (`adapter_parameter::shared`) trains once,
/// with the sum of their gradients. Not for concurrent use; passes that only read its adapters may run in parallel
/// between two steps.
template <real S>
class trainer {
public:
    explicit trainer(trainer_options options = {}) : options_(std::move(options)) {
        detail::expects(options_.learning_rate >= 0 && options_.lora_plus_ratio > 0 && options_.clip_norm >= 0 &&
                            options_.riemannian_delta >= 0 && options_.weight_decay >= 0,
                        "trainer: rates, decay, clip_norm and delta must not be negative, lora_plus_ratio positive");
        detail::expects(!options_.freeze_lora_A || options_.riemannian_delta == 0,
                        "trainer: choose one of freeze_lora_A and riemannian_delta");
    }

    /// Adds an adapter under a name of its own and refreshes it. Returns its number. `base` is shared or borrowed.
    /// \pre No step has been made; the name is new.
    index add(std::string name, any_adapter<S> adapter, any_operator<S> base) {
        detail::expects(steps_ == 0 && list_.empty(), "trainer::add: all adapters must be added before the first step");
        for (const auto& m : members_) {
            detail::expects(m->name != name, "trainer::add: every adapter needs a name of its own");
        }
        auto m = std::make_unique<member>(std::move(name), std::make_shared<any_adapter<S>>(std::move(adapter)),
                                          std::move(base));
        m->adapter->refresh(m->base);
        m->gradient.assign(static_cast<std::size_t>(m->adapter->parameter_count()), S(0));
        members_.push_back(std::move(m));
        return static_cast<index>(members_.size()) - 1;
    }

    [[nodiscard]] index size() const { return static_cast<index>(members_.size()); }
    [[nodiscard]] const std::string& name(index i) const { return at(i).name; }
    [[nodiscard]] const any_adapter<S>& adapter(index i) const { return *at(i).adapter; }
    /// For use in a layer while it trains: it changes at every step, and only then.
    [[nodiscard]] std::shared_ptr<const any_adapter<S>> share(index i) const { return at(i).adapter; }
    [[nodiscard]] std::int64_t steps() const { return steps_; }
    [[nodiscard]] const trainer_options& options() const { return options_; }

    /// Adds to the gradient of the next step.
    void accumulate(index i, const adapter_gradient<S>& gradient) {
        at(i).adapter->pull_back(gradient, at(i).gradient);
    }

    /// Updates every parameter with the gradient accumulated since the last step, which then starts from zero again.
    /// \return `non_finite` if the gradient is not a number: nothing but the gradient has then changed.
    result<training_step> step() {
        if (list_.empty()) {
            make_list();
        }
        for (const copy& c : copies_) {
            const std::span<S> sum = list_[c.of].gradient;
            std::transform(sum.begin(), sum.end(), c.gradient.begin(), sum.begin(), std::plus<>());
        }
        if (adalora_) {
            adalora_->before();
        }
        const double norm = options_.clip_norm > 0 ? clip_gradients(list_, options_.clip_norm) : gradient_norm(list_);
        if (!is_finite(norm)) {
            zero_gradients();
            return status{errc::non_finite, "training: the gradient is not a number after " + std::to_string(steps_) +
                                                " steps; use a smaller learning rate"};
        }
        for (auto& m : members_) {
            precondition(*m);
        }
        const double rate = options_.learning_rate * learning_rate_share(options_.schedule, steps_);
        std::vector<parameter_group> groups;
        for (const double factor : {1.0, options_.lora_plus_ratio}) {
            for (const double decay : {options_.weight_decay, 0.0}) {
                groups.push_back({.learning_rate = rate * factor, .weight_decay = decay});
            }
        }
        if (options_.optimizer == optimizer_kind::adamw) {
            adamw_step(
                list_, adamw_,
                {.groups = groups, .beta1 = options_.beta1, .beta2 = options_.beta2, .epsilon = options_.epsilon});
        } else {
            sgd_options sgd = sgd_settings();
            sgd.groups = groups;
            sgd_step(list_, sgd_, sgd);
        }
        if (adalora_) {
            adalora_->after(steps_);
        }
        ++steps_;
        zero_gradients();
        refresh_all();
        return training_step{.number = steps_, .learning_rate = rate, .gradient_norm = norm};
    }

    /// Which triplets of AdaLoRA adapter i the allocation has kept: see `keep_triplets`. \pre A step has been made,
    /// with `adalora` in the options.
    [[nodiscard]] const std::vector<bool>& kept_triplets(index i) const {
        (void)at(i);
        detail::expects(adalora_.has_value(), "trainer::kept_triplets: nothing was allocated yet");
        return adalora_->pattern(static_cast<std::size_t>(i));
    }

    /// A copy of parameters, moments and the number of steps. Gradients accumulated since the last step are not in it.
    [[nodiscard]] trainer_state<S> state() {
        if (list_.empty()) {
            make_list();
        }
        trainer_state<S> out;
        for_tensors([&](const std::string& name, std::span<S> values) {
            out.tensors.emplace(name, Eigen::Map<const vector<S>>(values.data(), static_cast<index>(values.size())));
        });
        out.facts = {{"format", "lowrank trainer 1"}, {"steps", std::to_string(steps_)}};
        return out;
    }

    /// Goes on from a saved state, bit for bit, if adapters, options and data are those of the saved run.
    /// \return `mismatch`, naming the tensor, if the state is not one of these adapters and this optimizer; then
    /// nothing
    ///         has changed.
    status restore(const trainer_state<S>& saved) {
        if (list_.empty()) {
            make_list();
        }
        const auto fact = [&](const char* key) {
            const auto found = saved.facts.find(key);
            return found == saved.facts.end() ? std::string() : found->second;
        };
        const std::string count = fact("steps");
        if (fact("format") != "lowrank trainer 1" || count.empty() || count.size() > 18 ||
            count.find_first_not_of("0123456789") != std::string::npos) {
            return {errc::mismatch, "trainer: this is not a saved state of a trainer"};
        }
        status why = {};
        std::size_t known = 0;
        for_tensors([&](const std::string& name, std::span<S> values) {
            const auto found = saved.tensors.find(name);
            if (found == saved.tensors.end() || static_cast<std::size_t>(found->second.size()) != values.size()) {
                why = {errc::mismatch, "trainer: the saved state has no tensor " + name + " of " +
                                           std::to_string(values.size()) + " entries"};
            }
            ++known;
        });
        if (why && known != saved.tensors.size()) {
            why = {errc::mismatch, "trainer: the saved state holds tensors of other adapters"};
        }
        if (!why) {
            return why;
        }
        for_tensors([&](const std::string& name, std::span<S> values) {
            const vector<S>& from = saved.tensors.at(name);
            std::copy(from.data(), from.data() + from.size(), values.begin());
        });
        if (adalora_) {
            adalora_->restored();
        }
        steps_ = std::strtoll(count.c_str(), nullptr, 10);
        adamw_.steps = steps_;
        sgd_.steps = steps_;
        zero_gradients();
        refresh_all();
        return {};
    }

private:
    struct member {
        member(std::string n, std::shared_ptr<any_adapter<S>> a, any_operator<S> b)
            : name(std::move(n)), adapter(std::move(a)), base(std::move(b)) {}

        std::string name;
        std::shared_ptr<any_adapter<S>> adapter;
        any_operator<S> base;
        std::vector<S> gradient = {};
        // The two factors, where the adapter has them.
        std::vector<adapter_parameter<S>> factors = {};
        std::vector<column_view<S>> factor_gradients = {};
        double scaling = 0;
    };

    /// A parameter that an adapter shares with one before it.
    struct copy {
        std::size_t of;  ///< Number in `list_`.
        std::span<S> value;
        std::span<S> gradient;
    };

    member& at(index i) const {
        detail::expects_in_range("trainer", "number of an adapter", i, index{0}, size() - 1);
        return *members_[static_cast<std::size_t>(i)];
    }
    [[nodiscard]] sgd_options sgd_settings() const {
        return {.momentum = options_.momentum, .nesterov = options_.nesterov};
    }

    void refresh_all() {
        for (const copy& c : copies_) {
            std::copy(list_[c.of].value.begin(), list_[c.of].value.end(), c.value.begin());
        }
        for (auto& m : members_) {
            m->adapter->refresh(m->base);
        }
    }

    void make_list() {
        std::map<std::string, std::size_t> shared;
        for (auto& m : members_) {
            const auto* lora = m->adapter->lora();
            m->scaling = lora == nullptr ? 0.0 : static_cast<double>(lora->scaling());
            std::size_t offset = 0;
            for (auto& p : m->adapter->parameters()) {
                const std::span<S> gradient = std::span(m->gradient).subspan(offset, p.values.size());
                offset += p.values.size();
                const std::string_view name = p.name;
                const bool is_factor = lora != nullptr && (name == "lora_A.weight" || name == "lora_B.weight");
                if (is_factor) {
                    m->factors.push_back(p);
                    m->factor_gradients.emplace_back(gradient.data(), p.rows, p.cols);
                }
                if (options_.freeze_lora_A && is_factor && name == "lora_A.weight") {
                    continue;
                }
                if (!p.shared.empty()) {
                    const auto [at, is_first] = shared.try_emplace(p.shared, list_.size());
                    if (!is_first) {
                        detail::expects(std::equal(p.values.begin(), p.values.end(), list_[at->second].value.begin(),
                                                   list_[at->second].value.end()),
                                        "trainer: adapters that share a parameter must start with the same values");
                        copies_.push_back({at->second, p.values, gradient});
                        continue;
                    }
                }
                const bool fast = name.substr(0, 6) == "lora_B" || p.is_vector;
                const bool spared = p.is_vector && !options_.decay_vectors;
                names_.push_back(p.shared.empty() ? m->name + "." + p.name : p.shared);
                list_.push_back({.value = p.values,
                                 .gradient = gradient,
                                 .group = static_cast<index>(fast ? 2 : 0) + static_cast<index>(spared ? 1 : 0)});
            }
        }
        if (options_.adalora.total_step > 0) {
            adalora_.emplace(options_.adalora, options_.orth_reg_weight);
            for (auto& m : members_) {
                adalora_->add(*m->adapter, m->gradient);
            }
            adalora_->start();
        }
        adamw_ = options_.optimizer == optimizer_kind::adamw ? make_adamw_state(list_) : adamw_state<S>{};
        sgd_ = options_.optimizer == optimizer_kind::sgd ? make_sgd_state(list_, sgd_settings()) : sgd_state<S>{};
    }

    void precondition(member& m) const {
        if (m.factors.size() != 2 || (options_.riemannian_delta == 0 && !options_.freeze_lora_A)) {
            return;
        }
        const auto view = [](const adapter_parameter<S>& p) {
            return const_column_view<S>(p.values.data(), p.rows, p.cols);
        };
        if (options_.freeze_lora_A) {
            precondition_frozen_a<S>(view(m.factors[0]), m.scaling, m.factor_gradients[1]);
        } else {
            precondition_riemannian<S>(view(m.factors[0]), view(m.factors[1]), m.factor_gradients[0],
                                       m.factor_gradients[1], options_.riemannian_delta);
        }
    }

    void zero_gradients() {
        for (auto& m : members_) {
            std::fill(m->gradient.begin(), m->gradient.end(), S(0));
        }
    }

    /// `visit(name, values)` for everything that is saved.
    template <class F>
    void for_tensors(F&& visit) {
        for (std::size_t k = 0; k < list_.size(); ++k) {
            visit(names_[k], list_[k].value);
            if (k < adamw_.first.size()) {
                visit(names_[k] + ".first_moment", detail::entries(adamw_.first[k]));
                visit(names_[k] + ".second_moment", detail::entries(adamw_.second[k]));
            }
            if (k < sgd_.momentum.size()) {
                visit(names_[k] + ".momentum", detail::entries(sgd_.momentum[k]));
            }
        }
        if (adalora_) {
            adalora_->for_tensors([&](std::size_t k) { return members_[k]->name; }, visit);
        }
    }

    trainer_options options_;
    std::vector<std::unique_ptr<member>> members_ = {};
    std::vector<trainable<S>> list_ = {};  ///< Made at the first step: what trains, in order.
    std::vector<std::string> names_ = {};
    std::vector<copy> copies_ = {};  ///< Further holders of parameters in the list.
    adamw_state<S> adamw_ = {};
    sgd_state<S> sgd_ = {};
    std::optional<detail::adalora_steps<S>> adalora_ = {};
    std::int64_t steps_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_TRAINER_HPP

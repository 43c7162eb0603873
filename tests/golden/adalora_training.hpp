// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_GOLDEN_ADALORA_TRAINING_HPP
#define LOWRANK_TESTS_GOLDEN_ADALORA_TRAINING_HPP

/// \file
/// AdaLoRA's case without layers: a whole training run of y = l2(tanh(l1(tanh(l0(x))))) with rank allocation, and the
/// allocator alone on a recorded trace.

#include <array>
#include <string>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/lora/train/adalora_allocator.hpp>
#include <lowrank/lora/train/adamw.hpp>

#include "golden_case.hpp"

namespace lowrank_tests {

template <class S>
class adalora_training {
public:
    adalora_training(const golden_case& c, computed<S>& out) : c_(c), out_(out), cfg_(c.info.at("training").at("cfg")) {
        for (std::size_t k = 0; k < count; ++k) {
            const std::string layer = name(k);
            weights_[k] = c.base.at(layer + ".weight").template weight<S>();
            biases_[k] = c.base.at(layer + ".bias").template vector<S>();
        }
        schedule_ = {.target_r = cfg_.at("target_r"),
                     .tinit = cfg_.at("tinit"),
                     .tfinal = cfg_.at("tfinal"),
                     .deltaT = cfg_.at("deltaT"),
                     .total_step = cfg_.at("total_step"),
                     .beta1 = cfg_.at("beta1"),
                     .beta2 = cfg_.at("beta2")};
    }

    void run() {
        train();
        replay();
        const auto final = read(c_.read_adapter("adapter_final_peer_f32").weights);
        out_.put_columns("y_final", forward(final, c_.inputs.at("z").template columns<S>()).back());
    }

private:
    using adapter = lowrank::adalora_adapter<S>;
    using matrix = lowrank::matrix<S>;
    static constexpr std::size_t count = 3;

    static std::string name(std::size_t k) { return "l" + std::to_string(k); }
    static std::string key(std::size_t k, const char* tensor) { return "base_model.model." + name(k) + "." + tensor; }

    [[nodiscard]] std::vector<adapter> read(const tensors& from) const {
        std::vector<adapter> all;
        for (std::size_t k = 0; k < count; ++k) {
            const tensor& a = from.at(key(k, "lora_A"));
            const tensor& b = from.at(key(k, "lora_B"));
            matrix b_values(b.dim(0), b.dim(1));
            for (index i = 0; i < b.size(); ++i) {
                b_values(i / b.dim(1), i % b.dim(1)) = static_cast<S>(b.values[static_cast<std::size_t>(i)]);
            }
            all.push_back({.lora_A = a.dim(0) == 0 ? matrix(0, a.dim(1)) : matrix(a.template weight<S>()),
                           .lora_B = b_values,
                           .lora_E = from.at(key(k, "lora_E")).template vector<S>(),
                           .lora_alpha = cfg_.at("lora_alpha"),
                           .ranknum = cfg_.at("init_r")});
        }
        return all;
    }

    /// Inputs of every layer, and last the output.
    [[nodiscard]] std::vector<matrix> forward(const std::vector<adapter>& adapters, const matrix& x) const {
        std::vector<matrix> values = {x};
        for (std::size_t k = 0; k < count; ++k) {
            matrix y = lowrank::apply(weights_[k], values.back()) + lowrank::apply(adapters[k].delta(), values.back());
            y.colwise() += biases_[k];
            values.push_back(k + 1 < count ? matrix(y.array().tanh()) : y);
        }
        return values;
    }

    [[nodiscard]] std::vector<adapter> backward(const std::vector<adapter>& adapters, const std::vector<matrix>& values,
                                                matrix dy) const {
        std::vector<adapter> gradients(count);
        lowrank::workspace ws;
        for (std::size_t k = count; k-- > 0;) {
            if (k + 1 < count) {
                dy.array() *= S(1) - values[k + 1].array().square();
            }
            const auto change = adapters[k].delta();
            auto g = lowrank::zero_gradient(change);
            matrix dx = lowrank::apply_transposed(weights_[k], dy);
            lowrank::column_view<S> dx_view = dx;
            lowrank::delta_backward(change, values[k], dy, g, &dx_view, ws);
            gradients[k] = adapters[k].pull_back(g);
            dy = dx;
        }
        return gradients;
    }

    void check_pattern(std::int64_t step, const lowrank::adalora_allocator<S>& state) const {
        const json& want = c_.info.at("rank_patterns").at(std::to_string(step));
        for (std::size_t k = 0; k < count; ++k) {
            if (want.at(name(k) + ".lora_E").get<std::vector<bool>>() != state.pattern[k]) {
                out_.fail("step " + std::to_string(step) + ": another rank pattern of " + name(k));
            }
        }
    }

    void train() {
        auto adapters = read(c_.read_adapter("adapter_init").weights);
        std::vector<adapter> gradients(count);
        auto state = lowrank::make_adalora_allocator(adapters, schedule_);
        const matrix x = c_.inputs.at("x").template columns<S>();
        const matrix t = c_.inputs.at("t").template columns<S>();
        const double weight = cfg_.at("orth_reg_weight");
        const lowrank::adamw_options options{.groups = {{.learning_rate = c_.info.at("training").at("lr"),
                                                         .weight_decay = c_.info.at("training").at("weight_decay")}}};
        lowrank::adamw_state<S> moments;
        std::vector<double> loss;
        std::vector<double> total;
        std::vector<double> budgets;
        std::vector<double> thresholds;
        for (std::int64_t step = 0; step < schedule_.total_step; ++step) {
            const auto values = forward(adapters, x);
            const matrix error = values.back() - t;
            loss.push_back(error.template cast<double>().squaredNorm() / static_cast<double>(error.size()));
            gradients = backward(adapters, values, error * (S(2) / static_cast<S>(error.size())));
            total.push_back(loss.back() + weight * lowrank::adalora_orthogonality(adapters, weight, &gradients));
            std::vector<lowrank::trainable<S>> list;
            const auto add = [&](auto& value, auto& gradient) {
                list.push_back({.value = {value.data(), static_cast<std::size_t>(value.size())},
                                .gradient = {gradient.data(), static_cast<std::size_t>(gradient.size())}});
            };
            for (std::size_t k = 0; k < count; ++k) {
                add(adapters[k].lora_A, gradients[k].lora_A);
                add(adapters[k].lora_B, gradients[k].lora_B);
                add(adapters[k].lora_E, gradients[k].lora_E);
            }
            if (step == 0) {
                moments = lowrank::make_adamw_state(list);
            }
            lowrank::adamw_step(list, moments, options);
            const auto done = lowrank::adalora_allocate(state, step, adapters, gradients);
            budgets.push_back(static_cast<double>(done.budget));
            thresholds.push_back(done.masked ? done.threshold : 0.0);
            if (done.masked) {
                check_pattern(step, state);
            }
        }
        out_.put_values("loss", loss);
        out_.put_values("total_loss", total);
        out_.put_values("budget", budgets);
        out_.put_values("threshold", thresholds);
        for (std::size_t k = 0; k < count; ++k) {
            out_.put_values("final_mask." + name(k) + ".lora_E",
                            std::vector<double>(state.pattern[k].begin(), state.pattern[k].end()));
            out_.put("final." + key(k, "lora_A"), adapters[k].lora_A);
            out_.put("final." + key(k, "lora_B"), adapters[k].lora_B);
            out_.put("final." + key(k, "lora_E"), adapters[k].lora_E);
            const auto small = lowrank::keep_triplets(adapters[k], state.pattern[k]);
            const matrix gap = small.delta().dense() - adapters[k].delta().dense();
            if (gap.size() > 0 && !(gap.cwiseAbs().maxCoeff() < S(1e-5))) {
                out_.fail("dropping masked triplets of " + name(k) + " changes the delta");
            }
        }
    }

    /// The allocator alone, on recorded parameters and gradients.
    void replay() {
        const auto at_step = [&](const std::string& kind, std::int64_t step) {
            tensors now;
            for (std::size_t k = 0; k < count; ++k) {
                for (const char* part : {"lora_A", "lora_B", "lora_E"}) {
                    const tensor& all = c_.inputs.at("trace." + kind + "." + key(k, part));
                    const std::ptrdiff_t size = all.dim(1) * all.dim(2);
                    now[key(k, part)] = {
                        .shape = {all.dim(1), all.dim(2)},
                        .values = {all.values.begin() + step * size, all.values.begin() + (step + 1) * size}};
                }
            }
            return read(now);
        };
        auto state = lowrank::make_adalora_allocator(at_step("param", 0), schedule_);
        std::vector<double> thresholds;
        for (std::int64_t step = 0; step < schedule_.total_step; ++step) {
            auto adapters = at_step("param", step);
            const auto done = lowrank::adalora_allocate(state, step, adapters, at_step("grad", step));
            if (done.masked) {
                thresholds.push_back(done.threshold);
                check_pattern(step, state);
            }
        }
        out_.put_values("decoupled.threshold", thresholds);
        for (std::size_t k = 0; k < count; ++k) {
            const auto put = [&](const std::string& what, const adapter& a) {
                out_.put("decoupled." + what + "." + key(k, "lora_A"), a.lora_A);
                out_.put("decoupled." + what + "." + key(k, "lora_B"), a.lora_B);
                out_.put("decoupled." + what + "." + key(k, "lora_E"), a.lora_E);
            };
            put("exp_avg_ipt", state.importance[k].sensitivity);
            put("exp_avg_unc", state.importance[k].uncertainty);
        }
    }

    const golden_case& c_;
    computed<S>& out_;
    const json& cfg_;
    lowrank::adalora_schedule schedule_ = {};
    std::array<lowrank::row_matrix<S>, count> weights_ = {};
    std::array<lowrank::vector<S>, count> biases_ = {};
};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_ADALORA_TRAINING_HPP

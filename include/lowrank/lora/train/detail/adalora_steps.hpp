// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_DETAIL_ADALORA_STEPS_HPP
#define LOWRANK_LORA_TRAIN_DETAIL_ADALORA_STEPS_HPP

/// \file
/// AdaLoRA's allocator as part of a trainer: the orthogonality loss before the optimizer's step, the budget after it.
///
///     detail::adalora_steps<float> steps(schedule, 0.5);
///     steps.add(adapter, gradient);                    // for every AdaLoRA adapter that trains
///     steps.before();  ...optimizer...  steps.after(step);

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/train/adalora_allocator.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

template <real S>
class adalora_steps {
public:
    adalora_steps(const adalora_schedule& schedule, double orthogonality)
        : schedule_(schedule), orthogonality_(orthogonality) {}

    /// An adapter that trains and its gradient, both of the caller, in the order of its parameters.
    void add(any_adapter<S>& adapter, std::span<S> gradient) {
        const auto* a = adapter.template get<adalora_adapter<S>>();
        expects(a != nullptr, "trainer: adalora is for AdaLoRA adapters alone");
        values_.push_back(*a);
        gradients_.push_back(*a);
        trained_.push_back({adapter.parameters(), gradient});
    }
    /// Call after the last `add`.
    void start() {
        state_ = make_adalora_allocator(values_, schedule_);
        for (const auto& keep : state_.pattern) {
            kept_.emplace_back(vector<S>::Ones(static_cast<index>(keep.size())));
        }
    }

    /// Adds the gradient of orthogonality * mean ||P P^T - I||_F.
    void before() {
        if (orthogonality_ == 0) {
            return;
        }
        read();
        (void)adalora_orthogonality(values_, orthogonality_, &gradients_);
        for (std::size_t k = 0; k < trained_.size(); ++k) {
            S* to = trained_[k].gradient.data();
            for (const auto* from : {&gradients_[k].lora_A, &gradients_[k].lora_B}) {
                to = std::copy(from->data(), from->data() + from->size(), to);
            }
        }
    }

    /// The allocator's step, with the gradients the optimizer used.
    void after(std::int64_t step) {
        read();
        (void)adalora_allocate(state_, step, values_, gradients_);
        for (std::size_t k = 0; k < trained_.size(); ++k) {
            const auto& e = values_[k].lora_E;
            std::copy(e.data(), e.data() + e.size(), trained_[k].parameters[2].values.begin());
            for (index i = 0; i < e.size(); ++i) {
                kept_[k](i) = state_.pattern[k][static_cast<std::size_t>(i)] ? S(1) : S(0);
            }
        }
    }

    /// Which triplets of adapter k the last mask kept.
    [[nodiscard]] const std::vector<bool>& pattern(std::size_t k) const { return state_.pattern[k]; }

    /// `visit(name, values)` for all that a saved run needs, `name_of(k)` naming adapter k.
    template <class Name, class F>
    void for_tensors(Name&& name_of, F&& visit) {
        for (std::size_t k = 0; k < trained_.size(); ++k) {
            const std::string name = name_of(k);
            auto& i = state_.importance[k];
            for (const auto& [part, a] :
                 {std::pair{".sensitivity", &i.sensitivity}, std::pair{".uncertainty", &i.uncertainty}}) {
                visit(name + ".lora_A" + part, entries(a->lora_A));
                visit(name + ".lora_B" + part, entries(a->lora_B));
                visit(name + ".lora_E" + part, entries(a->lora_E));
            }
            visit(name + ".lora_E.kept", entries(kept_[k]));
        }
    }
    /// Call after a `for_tensors` that wrote.
    void restored() {
        for (std::size_t k = 0; k < trained_.size(); ++k) {
            for (index i = 0; i < kept_[k].size(); ++i) {
                state_.pattern[k][static_cast<std::size_t>(i)] = kept_[k](i) != S(0);
            }
        }
    }

private:
    struct trained_adapter {
        std::vector<adapter_parameter<S>> parameters;  ///< A, B, E
        std::span<S> gradient;
    };
    static void copy(const S*& from, adalora_adapter<S>& to) {
        const auto fill = [&](auto& x) {
            std::copy(from, from + x.size(), x.data());
            from += x.size();
        };
        fill(to.lora_A);
        fill(to.lora_B);
        fill(to.lora_E);
    }
    void read() {
        for (std::size_t k = 0; k < trained_.size(); ++k) {
            const auto fill = [&](auto& x, std::size_t i) {
                std::copy(trained_[k].parameters[i].values.begin(), trained_[k].parameters[i].values.end(), x.data());
            };
            fill(values_[k].lora_A, 0);
            fill(values_[k].lora_B, 1);
            fill(values_[k].lora_E, 2);
            const S* from = trained_[k].gradient.data();
            copy(from, gradients_[k]);
        }
    }

    adalora_schedule schedule_;
    double orthogonality_;
    std::vector<adalora_adapter<S>> values_ = {};
    std::vector<adalora_adapter<S>> gradients_ = {};
    std::vector<trained_adapter> trained_ = {};
    adalora_allocator<S> state_ = {};
    std::vector<vector<S>> kept_ = {};  ///< The pattern as numbers, to be saved.
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_DETAIL_ADALORA_STEPS_HPP

// SPDX-License-Identifier: MIT
#ifndef LLAMA_ADAPTERS_HPP
#define LLAMA_ADAPTERS_HPP

/// \file
/// Adapters on a model: put in place by module path, taken off, all or nothing.
///
///     auto peft = lowrank::read_peft("shakespeare-lora-r4");
///     if (auto why = llama::attach(m, peft->modules); !why) return report(why.message);
///
/// The map's keys are PEFT's module paths, "model.layers.0.self_attn.q_proj". Several adapters add up.

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model.hpp"

namespace llama {

/// Adds `modules` to the projections they name.
/// \return not_found or mismatch, naming the module, and then the model is as it was.
template <real S, real From>
[[nodiscard]] status attach(model<S>& m, const std::map<std::string, lowrank::lora_adapter<From>>& modules,
                            S strength = S(1)) {
    std::vector<std::pair<projection<S>*, const lowrank::lora_adapter<From>*>> places;
    for (const auto& [name, adapter] : modules) {
        projection<S>* p = find_projection(m, name);
        if (p == nullptr) {
            const bool tied_head = name == "lm_head" && m.shape.tie_word_embeddings;
            return {errc::not_found, "the adapter changes " + name +
                                         (tied_head ? ", which this model shares with its embeddings"
                                                    : ", which is not a linear layer of this model")};
        }
        if (adapter.rows() != p->rows() || adapter.cols() != p->cols()) {
            return {errc::mismatch, "the adapter of " + name + " is for a " + std::to_string(adapter.rows()) + " x " +
                                        std::to_string(adapter.cols()) + " weight, the model's is " +
                                        std::to_string(p->rows()) + " x " + std::to_string(p->cols())};
        }
        if (!lowrank::all_finite(adapter.lora_A) || !lowrank::all_finite(adapter.lora_B)) {
            return {errc::non_finite, "the adapter of " + name + " contains NaN or infinity"};
        }
        places.emplace_back(p, &adapter);
    }
    for (const auto& [p, adapter] : places) {
        p->adapters.push_back({.adapter = std::make_shared<const lowrank::lora_adapter<S>>(
                                   lowrank::lora_adapter<S>{.lora_A = adapter->lora_A.template cast<S>(),
                                                            .lora_B = adapter->lora_B.template cast<S>(),
                                                            .lora_alpha = adapter->lora_alpha,
                                                            .use_rslora = adapter->use_rslora,
                                                            .lora_dropout = adapter->lora_dropout}),
                               .strength = strength});
    }
    return {};
}

/// Takes all adapters off.
template <real S>
void detach(model<S>& m) {
    for_each_projection(m, [](projection<S>& p) { p.adapters.clear(); });
}

}  // namespace llama

#endif  // LLAMA_ADAPTERS_HPP

// SPDX-License-Identifier: MIT
#ifndef LLAMA_ADAPTERS_HPP
#define LLAMA_ADAPTERS_HPP

/// \file
/// Adapters on a model: put in place by module path, taken off, all or nothing.
///
///     auto peft = lowrank::read_peft("shakespeare-lora-r4");
///     if (auto why = llama::attach(m, lowrank::lora_layers(*peft)); !why) return report(why.message);
///
/// The map's keys are PEFT's module paths, "model.layers.0.self_attn.q_proj". Several adapters add up: strength t of
/// one stands for the weight W + t (W' - W), with W' what it alone makes of W.

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/operator_columns.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "model.hpp"

namespace llama {

/// Adapters by module path.
template <real S>
using adapter_operator = std::map<std::string, lowrank::any_adapter<S>>;

/// Why there is no projection of that name.
template <real S>
[[nodiscard]] status no_such_layer(const model<S>& m, const std::string& name) {
    const bool tied_head = name == "lm_head" && m.shape.tie_word_embeddings;
    return {errc::not_found, "the adapter changes " + name +
                                 (tied_head ? ", which this model shares with its embeddings"
                                            : ", which is not a linear layer of this model")};
}

/// Adds `modules` to the projections they name, each refreshed with the weight it is for.
/// \return not_found, mismatch or non_finite, naming the module, and then the model is as it was.
template <real S>
[[nodiscard]] status attach(model<S>& m, adapter_operator<S> modules, std::type_identity_t<S> strength = S(1)) {
    std::vector<std::pair<projection<S>*, std::shared_ptr<const lowrank::any_adapter<S>>>> places;
    for (auto& [name, adapter] : modules) {
        projection<S>* p = find_projection(m, name);
        if (p == nullptr) {
            return no_such_layer(m, name);
        }
        const index rows = adapter.rows() == 0 ? p->rows() : adapter.rows();
        if (rows != p->rows() || adapter.cols() != p->cols()) {
            return {errc::mismatch, "the adapter of " + name + " is for a " + std::to_string(rows) + " x " +
                                        std::to_string(adapter.cols()) + " weight, the model's is " +
                                        std::to_string(p->rows()) + " x " + std::to_string(p->cols())};
        }
        for (const auto& parameter : adapter.parameters()) {
            if (!lowrank::all_finite(parameter.values.data(), static_cast<index>(parameter.values.size()))) {
                return {errc::non_finite, "the adapter of " + name + " contains NaN or infinity"};
            }
        }
        p->with_base([&, &a = adapter](lowrank::operator_reference<S> w) { a.refresh(w); });
        places.emplace_back(p, std::make_shared<const lowrank::any_adapter<S>>(std::move(adapter)));
    }
    for (auto& [p, adapter] : places) {
        p->adapters.push_back({.adapter = std::move(adapter), .strength = strength});
    }
    return {};
}

/// The same for plain LoRA, stored in any scalar.
template <real S, real From>
[[nodiscard]] status attach(model<S>& m, const std::map<std::string, lowrank::lora_adapter<From>>& modules,
                            std::type_identity_t<S> strength = S(1)) {
    adapter_operator<S> all;
    for (const auto& [name, adapter] : modules) {
        all.emplace(name, lowrank::lora_adapter<S>{.lora_A = adapter.lora_A.template cast<S>(),
                                                   .lora_B = adapter.lora_B.template cast<S>(),
                                                   .lora_alpha = adapter.lora_alpha,
                                                   .use_rslora = adapter.use_rslora,
                                                   .lora_dropout = adapter.lora_dropout});
    }
    return attach(m, std::move(all), strength);
}

/// Takes all adapters off.
template <real S>
void detach(model<S>& m) {
    for_each_projection(m, [](projection<S>& p) { p.adapters.clear(); });
}

/// Merges the adapters of every projection into its weight, rounded once, and takes them off.
/// \cost Where several change more than a sum of factors does, one product with the identity, 64 columns at a time.
/// \return non_finite if a merged weight is not finite, unsupported for a replaced base, naming the projection; those
///         before it are merged.
template <real S>
status merge_adapters(model<S>& m) {
    status why = {};
    for_each_projection(m, [&](projection<S>& p) {
        if (!why || p.adapters.empty()) {
            return;
        }
        if (p.base) {
            why = {errc::unsupported, p.name + ": its base was replaced, there is no weight to merge into"};
            return;
        }
        const weight_view<S> weight(p.weight);
        const auto fail = [&](const status& from) { why = {from.code, p.name + ": " + from.message}; };
        const bool sums = std::ranges::all_of(p.adapters, [](const auto& a) { return a.adapter->additive(); });
        if (sums || p.adapters.size() == 1) {
            lowrank::weight_change<S> change = p.adapters.front().adapter->change(p.adapters.front().strength);
            for (std::size_t i = 1; i < p.adapters.size(); ++i) {
                change = lowrank::sum(change, p.adapters[i].adapter->change(p.adapters[i].strength));
            }
            if (const auto done = lowrank::merge(weight, change); !done) {
                return fail(done.error());
            }
        } else {
            const row_matrix<S> merged = lowrank::dense_of(p);
            if (!lowrank::all_finite(merged)) {
                return fail({errc::non_finite, "the merged weight contains NaN or infinity"});
            }
            p.weight = merged;
        }
        p.adapters.clear();
    });
    return why;
}

}  // namespace llama

#endif  // LLAMA_ADAPTERS_HPP

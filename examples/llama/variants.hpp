// SPDX-License-Identifier: MIT
#ifndef LLAMA_VARIANTS_HPP
#define LLAMA_VARIANTS_HPP

/// \file
/// A new adapter of a chosen kind for every projection that trains.
///
///     auto make = llama::adapter_maker<float>(m, "lora", {.r = 4, .lora_alpha = 8});
///     lowrank::any_adapter<float> a = (*make)(*llama::find_projection(m, "model.layers.0.self_attn.q_proj"));
///
/// The kinds are those of the library's list that can be made for any layer, and "rslora", which is LoRA with another
/// scaling. The rank means what comes nearest to it in each kind.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/list.hpp>
#include <lowrank/lora/new_adapter.hpp>

#include "contract.hpp"
#include "model.hpp"

namespace llama {

/// What a kind is called where it is chosen.
[[nodiscard]] inline std::vector<std::string_view> variant_names() {
    std::vector<std::string_view> names;
    for (const auto& kind : lowrank::makeable_kinds<float>()) {
        names.push_back(kind.name);
        if (kind.name == "lora") {
            names.push_back("rslora");
        }
    }
    return names;
}

/// The kind of that name; null if there is none.
template <real S = float>
[[nodiscard]] const lowrank::makeable_kind<S>* find_variant(std::string_view name) {
    return lowrank::find_makeable_kind<S>(name == "rslora" ? "lora" : name);
}

/// Makes the adapter of one projection.
template <real S>
using adapter_factory = std::function<lowrank::any_adapter<S>(const projection<S>&)>;

/// Adapters of a kind, all of which leave the model as it is until they train. `options.stream` is set per projection.
/// `m` gives the sizes that kinds with shared factors or blocks need; it is not kept. \pre options.r >= 1
/// \return not_found for an unknown name, unsupported if the kind cannot do what the options ask for.
template <real S>
[[nodiscard]] result<adapter_factory<S>> adapter_maker(const model<S>& m, std::string_view name,
                                                       lowrank::lora_options options) {
    const auto* kind = find_variant<S>(name);
    if (kind == nullptr) {
        return status{errc::not_found, "there is no kind of adapter called " + std::string(name)};
    }
    options.use_rslora = options.use_rslora || name == "rslora";
    lowrank::adapted_layers all;
    for_each_projection(m, [&](const projection<S>& p) { all.add(p.rows(), p.cols()); });
    auto make = kind->make(all, options);
    if (!make) {
        return make.error();
    }
    return adapter_factory<S>([make = *std::move(make)](const projection<S>& p) {
        const auto of = [&](const auto& base) {
            return make({.base = base, .number = p.number, .is_feedforward = p.name.ends_with("down_proj")});
        };
        return p.base ? of(*p.base) : of(lowrank::as_operator(p.weight));
    });
}

}  // namespace llama

#endif  // LLAMA_VARIANTS_HPP

// SPDX-License-Identifier: MIT
#ifndef LLAMA_VARIANTS_HPP
#define LLAMA_VARIANTS_HPP

/// \file
/// A new adapter of a chosen kind for every projection that trains.
///
///     auto make = llama::adapter_maker<float>(m, llama::variant::dora, {.r = 4, .lora_alpha = 8});
///     lowrank::any_adapter<float> a = make(*llama::find_projection(m, "model.layers.0.self_attn.q_proj"));
///
/// The rank means what comes nearest to it in each kind: block sizes of OFT and BOFT, reflections of HRA, groups of
/// MiSS.

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/list.hpp>

#include "contract.hpp"
#include "model.hpp"

namespace llama {

enum class variant { lora, rslora, dora, adalora, vera, loha, lokr, ia3, oft, boft, hra, miss, randlora, hira };

inline constexpr std::array<std::pair<std::string_view, variant>, 14> variant_names = {{{"lora", variant::lora},
                                                                                        {"rslora", variant::rslora},
                                                                                        {"dora", variant::dora},
                                                                                        {"adalora", variant::adalora},
                                                                                        {"vera", variant::vera},
                                                                                        {"loha", variant::loha},
                                                                                        {"lokr", variant::lokr},
                                                                                        {"ia3", variant::ia3},
                                                                                        {"oft", variant::oft},
                                                                                        {"boft", variant::boft},
                                                                                        {"hra", variant::hra},
                                                                                        {"miss", variant::miss},
                                                                                        {"randlora", variant::randlora},
                                                                                        {"hira", variant::hira}}};

[[nodiscard]] inline std::string_view name_of(variant v) {
    return std::find_if(variant_names.begin(), variant_names.end(), [v](const auto& p) { return p.second == v; })
        ->first;
}

/// Makes the adapter of one projection.
template <real S>
using adapter_factory = std::function<lowrank::any_adapter<S>(const projection<S>&)>;

/// Adapters of kind `v`, all of which leave the model as it is until they train. `options.stream` is set per
/// projection. \pre options.r >= 1. `m` gives the sizes of the factors that VeRA and RandLoRA share
/// and of BOFT's blocks; it is not kept.
template <real S>
[[nodiscard]] adapter_factory<S> adapter_maker(const model<S>& m, variant v, const lowrank::lora_options& options) {
    using lowrank::any_adapter;
    index most_out = 1;
    index most_in = 1;
    index common_inputs = 0;
    for_each_projection(m, [&](const projection<S>& p) {
        most_out = std::max(most_out, p.rows());
        most_in = std::max(most_in, p.cols());
        common_inputs = std::gcd(common_inputs, p.cols());
    });
    const index r = options.r;
    const std::uint64_t seed = options.seed;
    const double alpha = options.lora_alpha;
    const auto lora_of = [options](const projection<S>& p, bool rslora) {
        lowrank::lora_options o = options;
        o.use_rslora = o.use_rslora || rslora;
        o.stream = p.number;
        return o;
    };
    switch (v) {
        case variant::lora:
        case variant::rslora:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_lora<S>(p.rows(), p.cols(), lora_of(p, v == variant::rslora));
            };
        case variant::dora:
            return [=](const projection<S>& p) -> any_adapter<S> {
                if (!p.base) {
                    return lowrank::make_dora(p.weight, lora_of(p, false));
                }
                return lowrank::dora_adapter<S>{
                    .lora = lowrank::make_lora<S>(p.rows(), p.cols(), lora_of(p, false)),
                    .magnitude = lowrank::squared_row_norms_of_operator(*p.base).cwiseSqrt().template cast<S>()};
            };
        case variant::adalora:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_adalora<S>(p.rows(), p.cols(),
                                                {.init_r = r, .lora_alpha = alpha, .seed = seed, .stream = p.number});
            };
        case variant::vera:
            return [=, shared = lowrank::make_vera_projections<S>(most_out, most_in, r, seed)](
                       const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_vera(shared, p.rows(), p.cols());
            };
        case variant::loha:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_loha<S>(p.rows(), p.cols(),
                                             {.r = r, .alpha = alpha, .seed = seed, .stream = p.number});
            };
        case variant::lokr:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_lokr<S>(p.rows(), p.cols(),
                                             {.r = r, .alpha = alpha, .seed = seed, .stream = p.number});
            };
        case variant::ia3:
            return [](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_ia3<S>(p.rows(), p.cols(), p.name.ends_with("down_proj"));
            };
        case variant::oft:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_oft<S>(p.rows(), p.cols(),
                                            {.block_size = lowrank::oft_block_size(p.cols(), std::max<index>(2, r))});
            };
        case variant::boft:  // one size for all layers, as PEFT's configuration has one
            return [=, size = lowrank::oft_block_size(common_inputs, std::max<index>(2, r))](
                       const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_boft<S>(p.rows(), p.cols(), {.block_size = size});
            };
        case variant::hra:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_hra<S>(p.rows(), p.cols(), {.r = r + r % 2, .seed = seed, .stream = p.number});
            };
        case variant::miss:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_miss<S>(p.rows(), p.cols(), {.r = r});
            };
        case variant::randlora:
            return [=, shared = lowrank::make_randlora_projections<S>(most_out, most_in, {.r = r, .seed = seed})](
                       const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_randlora(shared, p.rows(), p.cols(), 20.0 * static_cast<double>(r));
            };
        case variant::hira:
            return [=](const projection<S>& p) -> any_adapter<S> {
                return lowrank::make_hira<S>(p.rows(), p.cols(), {.r = r, .seed = seed, .stream = p.number});
            };
    }
    expects(false, "adapter_maker: unknown variant");
    return {};
}

}  // namespace llama

#endif  // LLAMA_VARIANTS_HPP

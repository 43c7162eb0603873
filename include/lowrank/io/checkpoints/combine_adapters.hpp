// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_HPP
#define LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_HPP

/// \file
/// Whole adapters into one, module by module: the eleven combination types of PEFT's `add_weighted_adapter`.
///
///     const lowrank::adapter_to_combine parts[] = {{&*poet, 0.7}, {&*coder, 0.3}};
///     auto both = lowrank::combine_adapters(parts, {.type = lowrank::combination_type::cat});
///     if (!both) return log(both.error().message);
///     auto why = lowrank::write_peft("both", both->adapter);
///
/// As in PEFT, a module that only some adapters have is made of those, with their weights as given. The report says of
/// each module how far the result is from the weighted sum of the changes, which only `cat` and `svd` of a high enough
/// rank (rule `fixed`) reach: the other types combine A and B apart or prune.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/combine/weighted_adapter.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One of several adapters, and its factor.
struct adapter_to_combine {
    const peft_adapter* adapter = nullptr;
    double weight = 1;
};

/// What became of one module.
struct combined_module {
    std::size_t parts = 0;  ///< How many of the adapters have it.
    index rank = 0;
    double norm = 0;      ///< ||change||_F of the result.
    double distance = 0;  ///< ||change - sum w_i change_i||_F / ||sum w_i change_i||_F; infinity where the sum is zero.
};

struct combined_adapters {
    peft_adapter adapter = {};
    std::map<std::string, combined_module> modules = {};
};

namespace detail {

/// One module's share of every adapter that has it.
struct module_parts {
    std::vector<lora_adapter<float>> adapters = {};
    std::vector<double> weights = {};
};

template <class = on_use>
[[nodiscard]] status check_parts(const std::string& module, const module_parts& p, const weighted_options& opt,
                                 std::size_t of_all) {
    const bool needs_one_rank = of_all > 1 && opt.type != combination_type::cat && !is_svd_type(opt.type);
    for (const auto& a : p.adapters) {
        const auto& first = p.adapters.front();
        if (a.rows() != first.rows() || a.cols() != first.cols()) {
            return {errc::mismatch, "module " + in_quotes(module) + " is " + std::to_string(first.rows()) + " x " +
                                        std::to_string(first.cols()) + " in one adapter and " +
                                        std::to_string(a.rows()) + " x " + std::to_string(a.cols()) +
                                        " in another; they belong to different models"};
        }
        if (needs_one_rank && a.rank() != first.rank()) {
            return {errc::mismatch, "module " + in_quotes(module) + " has rank " + std::to_string(first.rank()) +
                                        " in one adapter and " + std::to_string(a.rank()) +
                                        " in another, which this way of combining does not take; use cat or one of the "
                                        "svd types"};
        }
    }
    return {};
}

/// Combines the parts of one module.
template <class = on_use>
[[nodiscard]] result<lora_adapter<float>> combine_module(const module_parts& p, weighted_options opt, index largest,
                                                         bool use_rslora, combined_module& report) {
    const index full = std::min(p.adapters[0].rows(), p.adapters[0].cols());
    opt.svd_rank = std::min(full, opt.svd_rank > 0 ? opt.svd_rank : largest);
    auto made = weighted_adapter<float>(p.adapters, p.weights, opt);
    if (!made) {
        return made;
    }
    const auto r = static_cast<double>(made->rank());
    made->use_rslora = use_rslora;
    made->lora_alpha = use_rslora && opt.rule == weighted_rule::fixed ? std::sqrt(r) : r;
    std::vector<low_rank<float>> terms;
    for (const auto& a : p.adapters) {
        terms.push_back(a.delta());
    }
    std::vector<float> factors(p.weights.begin(), p.weights.end());
    const auto norm_of_sum =
        static_cast<double>(frobenius_norm(weighted_sum<float>(terms, std::span<const float>(factors))));
    terms.push_back(made->delta());
    factors.push_back(-1);
    const auto gap = static_cast<double>(frobenius_norm(weighted_sum<float>(terms, std::span<const float>(factors))));
    report = {.parts = p.adapters.size(),
              .rank = made->rank(),
              .norm = static_cast<double>(frobenius_norm(terms.back())),
              .distance = gap == 0 ? 0.0 : gap / norm_of_sum};
    return made;
}

}  // namespace detail

/// The combination of adapters, each with its weight. `svd_rank` 0 is the largest rank of any module, and a larger one
/// than a weight's is that weight's. Adapters whose changes are products of factors (LoHa, LoKr, AdaLoRA) are taken as
/// these, or by an SVD that loses nothing where the factors are of full rank.
///
/// \pre    At least one adapter, none null.
/// \return `mismatch` for a module of different shapes, or of different ranks where the type needs one, and for
/// adapters
///         that disagree on fan_in_fan_out; `unsupported` for DoRA and other types whose change depends on the weight,
///         and for tensors that several adapters replace (modules_to_save); `non_finite`.
/// \cost   That of `weighted_adapter` per module; the memory of all adapters.
template <class = on_use>
[[nodiscard]] result<combined_adapters> combine_adapters(std::span<const adapter_to_combine> parts,
                                                         const weighted_options& opt = {}) {
    detail::expects(!parts.empty(), "combine_adapters: needs at least one adapter");
    std::map<std::string, detail::module_parts> groups[2];  // layers, tables
    combined_adapters out;
    std::set<std::string> replaced;
    index largest = 0;
    for (const auto& [adapter, weight] : parts) {
        detail::expects(adapter != nullptr, "combine_adapters: an adapter is null");
        const rank_choice all = {.rule = rank_rule::relative_error, .value = 0, .min_rank = 1};
        const auto plain = to_plain_lora(*adapter, nullptr, {.rank = all});
        if (!plain) {
            return plain.error();
        }
        if (adapter->config.fan_in_fan_out != parts[0].adapter->config.fan_in_fan_out) {
            return status{errc::mismatch, "the adapters disagree on fan_in_fan_out; they belong to different models"};
        }
        for (const auto* group : {&plain->adapter.modules, &plain->adapter.embeddings}) {
            for (const auto& [module, lora] : *group) {
                auto& to = groups[group == &plain->adapter.modules ? 0 : 1][module];
                to.adapters.push_back(lora);
                to.weights.push_back(weight);
                largest = std::max(largest, lora.rank());
            }
        }
        for (const tensor_to_write& t : adapter->extra) {
            if (!replaced.insert(t.name).second) {
                return status{errc::unsupported, "several adapters replace tensor " + detail::in_quotes(t.name) +
                                                     " (modules_to_save), which cannot be combined"};
            }
            out.adapter.extra.push_back(t);
        }
    }
    weighted_options each = opt;
    each.single_is_linear = parts.size() == 1;
    for (int k = 0; k < 2; ++k) {
        for (const auto& [module, p] : groups[k]) {
            if (status why = detail::check_parts(module, p, opt, parts.size()); !why) {
                return why;
            }
            each.stream = opt.stream + (out.modules.size() << 20);
            auto made =
                detail::combine_module(p, each, largest, parts[0].adapter->config.use_rslora, out.modules[module]);
            if (!made) {
                return detail::in_context("module " + detail::in_quotes(module), made.error());
            }
            made->lora_dropout = parts[0].adapter->config.lora_dropout;
            (k == 0 ? out.adapter.modules : out.adapter.embeddings).emplace(module, std::move(*made));
        }
    }
    const auto& first = parts[0].adapter->config;
    out.adapter.config = peft_config_for(out.adapter, {.fan_in_fan_out = first.fan_in_fan_out,
                                                       .modules_to_save = first.modules_to_save,
                                                       .base_model_name_or_path = first.base_model_name_or_path,
                                                       .task_type = first.task_type});
    for (const auto& [adapter, weight] : parts.subspan(1)) {
        for (const auto& name : adapter->config.modules_to_save) {
            auto& all = out.adapter.config.modules_to_save;
            if (std::find(all.begin(), all.end(), name) == all.end()) {
                all.push_back(name);
            }
        }
    }
    return out;
}

/// The functions of this header that are worth compiling once, for io/instantiate.hpp.
#define LOWRANK_IO_COMBINE_ADAPTERS(way)                                                                 \
    way template result<combined_adapters> combine_adapters<on_use>(std::span<const adapter_to_combine>, \
                                                                    const weighted_options&);
#ifdef LOWRANK_EXTERN_IO
LOWRANK_IO_COMBINE_ADAPTERS(extern)
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_HPP

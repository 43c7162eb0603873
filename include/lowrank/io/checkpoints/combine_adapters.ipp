// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_IPP
#define LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_IPP

#include <lowrank/io/checkpoints/combine_adapters.hpp>

#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// One module's share of every adapter that has it.
struct module_parts {
    std::vector<lora_adapter<float>> adapters = {};
    std::vector<double> weights = {};
};

LOWRANK_API [[nodiscard]] status check_parts(const std::string& module, const module_parts& p,
                                             const weighted_options& opt, std::size_t of_all) {
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
LOWRANK_API [[nodiscard]] result<lora_adapter<float>> combine_module(const module_parts& p, weighted_options opt,
                                                                     index largest, bool use_rslora,
                                                                     combined_module& report) {
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

LOWRANK_BODY result<combined_adapters> combine_adapters(std::span<const adapter_to_combine> parts,
                                                        const weighted_options& opt) {
    detail::expects(!parts.empty(), "combine_adapters: needs at least one adapter");
    std::map<std::string, detail::module_parts> groups[2];  // layers, tables
    combined_adapters out;
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
        for (const auto& [path, module] : plain->adapter.modules) {
            if (const tensor_to_write* t = stored_tensor(module)) {
                if (!out.adapter.modules.emplace(path, module).second) {
                    return status{errc::unsupported, "several adapters replace tensor " + detail::in_quotes(t->name) +
                                                         " (modules_to_save), which cannot be combined"};
                }
                continue;
            }
            const lora_adapter<float>& lora = lora_of(module);
            auto& to = groups[is_plain_table(module) ? 1 : 0][path];
            to.adapters.push_back(lora);
            to.weights.push_back(weight);
            largest = std::max(largest, lora.rank());
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
            auto made = detail::combine_module(p, each, largest,
                                               parts[0].adapter->config.options.template get<bool>("use_rslora"),
                                               out.modules[module]);
            if (!made) {
                return detail::in_context("module " + detail::in_quotes(module), made.error());
            }
            made->lora_dropout = parts[0].adapter->config.lora_dropout;
            out.adapter.modules.emplace(module, plain_module(std::move(*made), k == 1));
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

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_IPP

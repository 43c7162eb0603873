// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_RULES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_RULES_HPP

/// \file
/// Rank and alpha of each module of a PEFT adapter.
///
///     auto rules = detail::peft_rules::compile(config, modules);
///     rules->r_for("model.layers.0.mlp.up_proj");

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/module_rules.hpp>
#include <lowrank/io/peft/peft_config.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// rank_pattern and alpha_pattern of a configuration, compiled for the modules of an adapter.
class peft_rules {
public:
    /// \return `mismatch` for a key that matches no module: it was misspelt; as `module_rules::compile`.
    [[nodiscard]] static result<peft_rules> compile(const peft_lora_config& c,
                                                    const std::vector<std::string_view>& modules,
                                                    std::string_view rank_key = "rank_pattern") {
        auto ranks = module_rules<index>::compile(c.rank_pattern);
        auto alphas = module_rules<double>::compile(c.alpha_pattern);
        if (!ranks || !alphas) {
            return ranks ? in_context("alpha_pattern", alphas.error())
                         : in_context(std::string(rank_key), ranks.error());
        }
        std::size_t bytes = 0;
        for (const auto module : modules) {
            bytes += module.size();
        }
        constexpr std::size_t most_steps = std::size_t{1} << 32;
        if (bytes != 0 && ranks->cost() + alphas->cost() > most_steps / bytes) {
            return status{errc::unsupported, "the patterns are too large for so many modules; use simpler ones"};
        }
        status why = check_used(rank_key, c.rank_pattern, *ranks, modules);
        if (why) {
            why = check_used("alpha_pattern", c.alpha_pattern, *alphas, modules);
        }
        if (!why) {
            return why;
        }
        return peft_rules(c, std::move(*ranks), std::move(*alphas));
    }

    [[nodiscard]] index r_for(std::string_view module) const {
        const index* r = ranks_.find(module);
        return r != nullptr ? *r : r_;
    }
    [[nodiscard]] double alpha_for(std::string_view module) const {
        const double* alpha = alphas_.find(module);
        return alpha != nullptr ? *alpha : alpha_;
    }

private:
    peft_rules(const peft_lora_config& c, module_rules<index> ranks, module_rules<double> alphas)
        : r_(c.r), alpha_(c.lora_alpha), ranks_(std::move(ranks)), alphas_(std::move(alphas)) {}

    template <class T>
    static status check_used(std::string_view what, const module_pattern<T>& patterns, const module_rules<T>& rules,
                             const std::vector<std::string_view>& modules) {
        for (std::size_t i = 0; i < patterns.size(); ++i) {
            const module_key& key = rules.rules()[i].first;
            if (std::none_of(modules.begin(), modules.end(), [&](auto m) { return key.matches(m); })) {
                return {errc::mismatch, std::string("the key ") + in_quotes(patterns[i].first) + " of " +
                                            std::string(what) +
                                            " matches no module of the adapter; correct or remove it"};
            }
        }
        return {};
    }

    index r_;
    double alpha_;
    module_rules<index> ranks_;
    module_rules<double> alphas_;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_RULES_HPP

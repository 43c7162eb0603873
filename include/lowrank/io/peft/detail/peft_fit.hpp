// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_FIT_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_FIT_HPP

/// \file
/// Whether an adapter_config.json describes the modules of an adapter, and one that does.
///
///     if (status why = detail::check_relative(name, module, config, rules); !why) return why;

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/peft_factors.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/detail/peft_types.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

LOWRANK_INLINE [[nodiscard]] status check_against_config(const std::string& module, const lora_adapter<float>& lora,
                                                         const peft_lora_config& c, const peft_rules& rules) {
    const auto differs = [&](const char* what, const std::string& has, const std::string& says) {
        return status{errc::mismatch, "module " + in_quotes(module) + " has " + what + " " + has +
                                          ", the configuration says " + says +
                                          "; use peft_config_for to make one that fits"};
    };
    if (lora.lora_B.cols() != lora.rank()) {
        return {errc::mismatch, "module " + in_quotes(module) + " has factors of different rank"};
    }
    if (lora.rank() != rules.r_for(module)) {
        return differs("rank", std::to_string(lora.rank()), std::to_string(rules.r_for(module)));
    }
    if (lora.lora_alpha != rules.alpha_for(module)) {
        return differs("lora_alpha", in_words(lora.lora_alpha), in_words(rules.alpha_for(module)));
    }
    if (lora.use_rslora != c.use_rslora) {
        return differs("use_rslora", lora.use_rslora ? "true" : "false", c.use_rslora ? "true" : "false");
    }
    if (!all_finite(lora.lora_A) || !all_finite(lora.lora_B)) {
        return {errc::non_finite, "module " + in_quotes(module) + " holds NaN or infinity"};
    }
    return {};
}

/// What the configuration says about one module.
struct module_facts {
    std::string_view module;
    index r;
    double alpha;
};

/// Rank, alpha, patterns and targets that fit.
LOWRANK_INLINE void fit_config(peft_lora_config& base, const std::vector<module_facts>& all) {
    base.rank_pattern.clear();
    base.alpha_pattern.clear();
    base.target_modules.clear();
    base.target_pattern.clear();
    std::map<index, std::size_t> ranks;
    std::map<double, std::size_t> alphas;
    std::map<std::string_view, std::size_t> targets;
    for (const module_facts& m : all) {
        ++ranks[m.r];
        ++alphas[m.alpha];
        ++targets[m.module.substr(m.module.rfind('.') + 1)];  // npos + 1 is 0: the whole path
    }
    if (all.empty()) {
        return;
    }
    const auto most = [](const auto& counts) {
        return std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) { return a.second < b.second; })
            ->first;
    };
    base.r = most(ranks);
    base.lora_alpha = most(alphas);
    for (const auto& [name, count] : targets) {
        base.target_modules.emplace_back(name);
    }
    for (const module_facts& m : all) {
        // Anchored and escaped, so that the key means this module and no other.
        std::string key = "^";
        for (const char c : m.module) {
            const bool plain = static_cast<unsigned char>(c) >= 0x80 || c == '_' || (c >= '0' && c <= '9') ||
                               (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
            key += plain ? "" : "\\";
            key += c;
        }
        if (m.r != base.r) {
            base.rank_pattern.emplace_back(key, m.r);
        }
        if (m.alpha != base.lora_alpha) {
            base.alpha_pattern.emplace_back(key, m.alpha);
        }
    }
}

/// Block sizes, forms and flags of OFT, BOFT, HRA and MiSS that fit; nothing is said of other types.
LOWRANK_INLINE void fit_kind(peft_kind_options& o, const std::map<std::string, peft_module>& modules) {
    for (const auto& [name, relative] : modules) {
        if (const auto* oft = std::get_if<oft_adapter<float>>(&relative)) {
            const auto b = static_cast<std::int64_t>(oft->block_size());
            const auto holds = [&](std::int64_t size) {
                return std::all_of(modules.begin(), modules.end(), [&](const auto& m) {
                    const auto* a = std::get_if<oft_adapter<float>>(&m.second);
                    return a == nullptr || a->in == 0 || oft_block_size(a->in, size) == a->block_size();
                });
            };
            if (o.block_size <= 0 || !holds(o.block_size)) {
                o.block_size = o.block_size <= 0 || holds(b) ? b : o.block_size;
            }
            o.block_count = 0;
            o.block_share = o.block_share || oft->in == 0 || (oft->oft_R.rows() == 1 && oft->in != oft->block_size());
            o.coft = oft->coft;
            o.eps = oft->eps;
            o.use_cayley_neumann = oft->use_cayley_neumann;
            o.num_cayley_neumann_terms = oft->num_cayley_neumann_terms;
        } else if (const auto* boft = std::get_if<peft_boft>(&relative)) {
            o.block_size = boft->boft.block_size();
            o.block_count = 0;
            o.butterfly_factors = boft->boft.factor_count();
        } else if (const auto* hra = std::get_if<hra_adapter<float>>(&relative)) {
            o.apply_GS = hra->apply_GS;
        } else if (const auto* miss = std::get_if<miss_adapter<float>>(&relative)) {
            const bool mini = miss->miss_block.cols() != miss->out;
            o.form = mini ? "mini" : o.form == "mini" ? o.form : "";
            o.mini_r = mini ? miss->miss_block.cols() : o.mini_r;
        } else if (std::holds_alternative<miss_bat_adapter<float>>(relative)) {
            o.form = "bat";
        }
    }
}

/// True if PEFT makes of the configuration what the module is.
LOWRANK_INLINE [[nodiscard]] bool fits_kind(const peft_kind_options& o, const std::string& name,
                                            const peft_module& relative) {
    if (const auto* oft = std::get_if<oft_adapter<float>>(&relative)) {
        const bool shared = o.block_share && oft->oft_R.rows() == 1;
        const index b = oft->block_size();
        const bool blocks =
            oft->in == 0 ||
            (o.block_size > 0
                 ? oft_block_size(oft->in, static_cast<index>(o.block_size)) == b
                 : o.block_count > 0 && oft_block_size(oft->in, static_cast<index>(o.block_count)) * b == oft->in);
        return blocks && (shared || (!o.block_share && oft->oft_R.rows() * b == oft->in)) && oft->coft == o.coft &&
               oft->eps == o.eps && oft->use_cayley_neumann == o.use_cayley_neumann &&
               oft->num_cayley_neumann_terms == static_cast<index>(o.num_cayley_neumann_terms);
    }
    if (const auto* boft = std::get_if<peft_boft>(&relative)) {
        const index b = boft->boft.block_size();
        return b > 0 && boft->boft.factor_count() == static_cast<index>(o.butterfly_factors) &&
               (o.block_size > 0 ? b == static_cast<index>(o.block_size)
                                 : b * static_cast<index>(o.block_count) == boft->boft.in);
    }
    if (const auto* hra = std::get_if<hra_adapter<float>>(&relative)) {
        return hra->apply_GS == o.apply_GS;
    }
    if (const auto* miss = std::get_if<miss_adapter<float>>(&relative)) {
        return o.form == "mini" ? miss->miss_block.cols() == static_cast<index>(o.mini_r)
                                : o.form.empty() && miss->miss_block.cols() == miss->out;
    }
    if (std::holds_alternative<miss_bat_adapter<float>>(relative)) {
        return o.form == "bat";
    }
    if (const auto* m = std::get_if<adalora_adapter<float>>(&relative)) {
        const auto kept = o.triplets.find(name + ".lora_E");
        return kept == o.triplets.end() ||
               std::count(kept->second.begin(), kept->second.end(), true) == m->lora_E.size();
    }
    return true;
}

/// Rank and alpha of a relative as its configuration gives them.
LOWRANK_INLINE [[nodiscard]] module_facts facts_of(std::string_view module, const peft_module& relative) {
    const peft_facts facts = std::visit([](const auto& m) { return kind_of_module<decltype(m)>::facts(m); }, relative);
    return {module, facts.r, facts.alpha};
}

[[nodiscard]] inline const lora_adapter<float>* lora_of(const peft_module& relative) {
    const auto* m = std::get_if<peft_lora>(&relative);
    return m != nullptr ? &m->lora : nullptr;
}

/// What the configuration cannot say of a relative.
LOWRANK_INLINE [[nodiscard]] status check_relative(const std::string& module, const peft_module& relative,
                                                   const peft_lora_config& c, const peft_rules& rules) {
    const auto differs = [&](const char* what) {
        return status{errc::mismatch,
                      "module " + in_quotes(module) + ": its " + what +
                          " is not that of the configuration; use peft_config_for to make one that fits"};
    };
    if (find_peft_type(type_of(relative)) == nullptr) {
        return {errc::unsupported,
                "module " + in_quotes(module) + " is " + kind_of(relative) + ", for which PEFT has no place"};
    }
    if (!is_of_type(relative, c.peft_type)) {
        return differs("peft_type");
    }
    if (const auto* m = std::get_if<peft_lora>(&relative)) {
        if ((m->magnitude.size() != 0) != c.use_dora) {
            return differs("use_dora");
        }
        if (m->bias.size() != 0 && !c.lora_bias) {
            return differs("lora_bias");
        }
        return check_against_config(module, m->lora, c, rules);
    }
    const module_facts has = facts_of(module, relative);
    const peft_type& type = *find_peft_type(c.peft_type);
    if (type.r_key != nullptr && has.r != (type.ranks ? rules.r_for(module) : c.r)) {
        return differs("rank");
    }
    if (!fits_kind(c.kind, module, relative)) {
        return differs("block size, form or pattern");
    }
    const double says = type.alphas ? rules.alpha_for(module) : c.lora_alpha;
    const bool is_rank = c.peft_type == "ADALORA" && says <= 0;  // as join_adalora
    if (type.alpha_key != nullptr && has.alpha != (is_rank ? static_cast<double>(c.r) : says)) {
        return differs("alpha");
    }
    return {};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_FIT_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_DETAIL_PEFT_FACTORS_HPP
#define LOWRANK_IO_DETAIL_PEFT_FACTORS_HPP

/// \file
/// Rank and alpha of each module of a PEFT adapter, and two tensors made into one adapter, or what is wrong with them.
///
///     auto rules = detail::peft_rules::compile(config, modules);
///     auto adapter = detail::join_factors(file, factors, module, config, *rules);

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoint.hpp>
#include <lowrank/io/detail/module_rules.hpp>
#include <lowrank/io/detail/text.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/lora/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// rank_pattern and alpha_pattern of a configuration, compiled for the modules of an adapter.
class peft_rules {
public:
    /// \return `mismatch` for a key that matches no module: it was misspelt; as `module_rules::compile`.
    [[nodiscard]] static result<peft_rules> compile(const peft_lora_config& c,
                                                    const std::vector<std::string_view>& modules) {
        auto ranks = module_rules<index>::compile(c.rank_pattern);
        auto alphas = module_rules<double>::compile(c.alpha_pattern);
        if (!ranks || !alphas) {
            return ranks ? in_context("alpha_pattern", alphas.error()) : in_context("rank_pattern", ranks.error());
        }
        std::size_t bytes = 0;
        for (const auto module : modules) {
            bytes += module.size();
        }
        constexpr std::size_t most_steps = std::size_t{1} << 32;
        if (bytes != 0 && ranks->cost() + alphas->cost() > most_steps / bytes) {
            return status{errc::unsupported, "the patterns are too large for so many modules; use simpler ones"};
        }
        status why = check_used("rank_pattern", c.rank_pattern, *ranks, modules);
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
    static status check_used(const char* what, const module_pattern<T>& patterns, const module_rules<T>& rules,
                             const std::vector<std::string_view>& modules) {
        for (std::size_t i = 0; i < patterns.size(); ++i) {
            const module_key& key = rules.rules()[i].first;
            if (std::none_of(modules.begin(), modules.end(), [&](auto m) { return key.matches(m); })) {
                return {errc::mismatch, std::string("the key ") + in_quotes(patterns[i].first) + " of " + what +
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

template <class First, class Second>
[[nodiscard]] std::vector<std::string_view> names_of(const First& modules, const Second& embeddings) {
    std::vector<std::string_view> names;
    for (const auto& [module, value] : modules) {
        names.push_back(module);
    }
    for (const auto& [module, value] : embeddings) {
        names.push_back(module);
    }
    return names;
}

/// The two factors of one module while they are collected.
struct peft_factors {
    const checkpoint::place* a = nullptr;
    const checkpoint::place* b = nullptr;
};

/// Makes an adapter of two tensors, or says what is wrong with them.
[[nodiscard]] inline result<lora_adapter<float>> join_factors(const checkpoint& file, const peft_factors& f,
                                                              const std::string& module, const peft_lora_config& c,
                                                              const peft_rules& rules) {
    const auto about = [&](errc code, const tensor_info& t, std::string text) {
        return status{code, "tensor " + in_quotes(t.name) + " " + std::move(text)};
    };
    if (f.a == nullptr || f.b == nullptr) {
        const tensor_info& there = f.a != nullptr ? *f.a->info : *f.b->info;
        return about(errc::invalid_format, there,
                     std::string("has no partner: the file lacks ") + (f.a == nullptr ? "lora_A" : "lora_B") +
                         " of module " + in_quotes(module));
    }
    const tensor_info& a = *f.a->info;
    const tensor_info& b = *f.b->info;
    for (const tensor_info* t : {&a, &b}) {
        if (t->shape.size() > 2) {
            return about(errc::unsupported, *t,
                         "has shape " + shape_in_words(t->shape) + "; adapters of convolutions are not supported");
        }
        if (t->shape.size() < 2) {
            return about(errc::invalid_format, *t, "has shape " + shape_in_words(t->shape) + ", expected a matrix");
        }
        if (!is_real(t->type)) {
            return not_real(*t);
        }
    }
    const auto r = static_cast<std::uint64_t>(rules.r_for(module));
    const std::uint64_t lora_r = a.shape[0];
    if (lora_r != r || b.shape[1] != r) {
        if (a.shape[1] == r && b.shape[0] == r) {
            return about(errc::mismatch, a,
                         "has shape " + shape_in_words(a.shape) + " where [r, in] with r = " + std::to_string(r) +
                             " is expected; it looks transposed, as MLX stores it");
        }
        if (lora_r != b.shape[1]) {
            return about(errc::mismatch, b,
                         "has shape " + shape_in_words(b.shape) + ", its lora_A has " + shape_in_words(a.shape) +
                             "; [out, r] and [r, in] must have the same r");
        }
        return about(errc::mismatch, a,
                     "has rank " + std::to_string(lora_r) + ", the configuration says " + std::to_string(r));
    }
    lora_adapter<float> out{
        .lora_alpha = rules.alpha_for(module), .use_rslora = c.use_rslora, .lora_dropout = c.lora_dropout};
    const auto read = [&](const checkpoint::place& p, matrix<float>& to) -> status {
        auto m = matrix_from<float>(*p.info, file.bytes(p));
        if (!m) {
            return m.error();
        }
        if (!all_finite(*m)) {
            return about(errc::non_finite, *p.info, "holds NaN or infinity");
        }
        to = *m;
        return {};
    };
    if (status why = read(*f.a, out.lora_A); !why) {
        return why;
    }
    if (status why = read(*f.b, out.lora_B); !why) {
        return why;
    }
    return out;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_DETAIL_PEFT_FACTORS_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_ADALORA_HPP
#define LOWRANK_IO_PEFT_KINDS_ADALORA_HPP

/// \file
/// AdaLoRA in an adapter of PEFT: three tensors a module.
///
///     const lowrank::peft_module module = lowrank::adalora_adapter<float>{};    // in an adapter of peft_type ADALORA
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/adalora.hpp>
#include <lowrank/lora/train/adalora_allocator.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// How many of the init_r triplets of a module rank_pattern keeps, if it says that.
LOWRANK_INLINE std::optional<index> kept_triplets(const peft_options& o, const std::string& module) {
    const auto all = o.get<peft_flags>("rank_pattern");
    const auto at = all.find(module + ".lora_E");
    return at == all.end() ? std::nullopt
                           : std::optional(static_cast<index>(std::count(at->second.begin(), at->second.end(), true)));
}

LOWRANK_INLINE adalora_adapter<float> join_adalora(peft_parts& p, const peft_context& c) {
    adalora_adapter<float> out{.lora_A = p.take("lora_A"),
                               .lora_B = p.take("lora_B"),
                               .lora_E = p.take_vector("lora_E"),
                               .lora_alpha = c.alpha > 0 ? c.alpha : static_cast<double>(c.r),
                               .ranknum = static_cast<double>(c.r)};
    p.agree(out.lora_A.rows() == out.lora_B.cols() && out.lora_E.size() == out.lora_A.rows());
    if (const auto kept = kept_triplets(c.options, p.module()); kept && *kept != out.lora_E.size()) {
        p.fail(errc::mismatch,
               "has " + std::to_string(out.lora_E.size()) + " triplets, rank_pattern says " + std::to_string(*kept));
    }
    return out;
}

}  // namespace detail

/// Says in a configuration how an allocator chooses the triplets that are kept.
LOWRANK_INLINE void set_schedule(peft_options& o, const adalora_schedule& s) {
    o.set("target_r", static_cast<std::int64_t>(s.target_r));
    o.set("tinit", s.tinit);
    o.set("tfinal", s.tfinal);
    o.set("deltaT", s.deltaT);
    o.set("total_step", s.total_step);
    o.set("beta1", s.beta1);
    o.set("beta2", s.beta2);
}

template <>
struct peft_kind<adalora_adapter<float>> {
    using module = adalora_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "ADALORA",
                 .r_key = "init_r",
                 .r = 12,
                 .alpha_key = "lora_alpha",
                 .alpha = 8,
                 .alpha_of_zero_is_r = true,
                 .dropout_key = "lora_dropout",
                 .leaves = {"lora_A", "lora_B", "lora_E"},
                 .keys = {{"target_r", std::int64_t{8}},
                          {"tinit", std::int64_t{0}},
                          {"tfinal", std::int64_t{0}},
                          {"deltaT", std::int64_t{1}},
                          {"total_step", std::int64_t{0}, false, true},
                          {"beta1", 0.85},
                          {"beta2", 0.85},
                          {"orth_reg_weight", 0.5},
                          {"rank_pattern", peft_flags{}, false, true}}}};
    }
    static const char* label(const module&) { return "AdaLoRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.lora_B.rows(), m.lora_A.cols()}; }
    static bool fit(module&, index, index) { return true; }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {static_cast<index>(m.ranknum), m.lora_alpha}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_adalora(p, c); }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string& name, const module& m) {
        const auto kept = detail::kept_triplets(o, name);
        return kept && *kept != m.lora_E.size() ? "rank_pattern" : nullptr;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("lora_A", m.lora_A);
        to.add("lora_B", m.lora_B);
        to.add("lora_E", m.lora_E);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_ADALORA_HPP

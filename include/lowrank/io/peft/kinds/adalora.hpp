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
#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/kinds/adalora.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE adalora_adapter<float> join_adalora(relative_parts& p, const peft_lora_config& c) {
    adalora_adapter<float> out{.lora_A = p.take("lora_A"),
                               .lora_B = p.take("lora_B"),
                               .lora_E = p.take_vector("lora_E"),
                               .lora_alpha = c.lora_alpha > 0 ? c.lora_alpha : static_cast<double>(c.r),
                               .ranknum = static_cast<double>(c.r)};
    p.agree(out.lora_A.rows() == out.lora_B.cols() && out.lora_E.size() == out.lora_A.rows());
    const auto kept = c.kind.triplets.find(p.module() + ".lora_E");
    if (kept != c.kind.triplets.end() &&
        std::count(kept->second.begin(), kept->second.end(), true) != out.lora_E.size()) {
        p.fail(errc::mismatch, "has " + std::to_string(out.lora_E.size()) + " triplets, rank_pattern says " +
                                   std::to_string(std::count(kept->second.begin(), kept->second.end(), true)));
    }
    return out;
}

}  // namespace detail

template <>
struct peft_kind<adalora_adapter<float>> {
    using module = adalora_adapter<float>;
    static constexpr std::string_view type = "ADALORA";
    static constexpr std::string_view leaves[] = {"lora_A", "lora_B", "lora_E"};
    static const char* label(const module&) { return "AdaLoRA"; }
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) {
        return {m.lora_B.rows(), m.lora_A.cols()};
    }
    static bool fit(module&, index, index) { return true; }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) {
        return {static_cast<index>(m.ranknum), m.lora_alpha};
    }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    LOWRANK_INLINE static module join(detail::relative_parts& p, [[maybe_unused]] const detail::peft_context& c) {
        return detail::join_adalora(p, c.config);
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) {
        to.add(".lora_A", m.lora_A);
        to.add(".lora_B", m.lora_B);
        to.add(".lora_E", m.lora_E);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_ADALORA_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LOKR_HPP
#define LOWRANK_IO_PEFT_KINDS_LOKR_HPP

/// \file
/// LoKr in an adapter of PEFT or LyCORIS: two small matrices a module, whole or as factors.
///
///     const lowrank::peft_module module = lowrank::lokr_adapter<float>{};    // in an adapter of peft_type LOKR
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/lokr.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE lokr_factor<float> join_lokr_factor(relative_parts& p, const char* whole, const char* a, const char* b,
                                                   std::optional<index> r) {
    if (p.has(whole)) {
        lokr_factor<float> out{.left = p.take(whole)};
        p.agree(out.left.size() != 0);
        return out;
    }
    lokr_factor<float> out{.left = p.take(a), .right = p.take(b)};
    if (std::string_view(whole) == "lokr_w2") {
        unfold_tucker(p, "lokr_t2", out.left, out.right);
    }
    p.agree(out.left.cols() == out.right.rows() && (!r || out.left.cols() == *r));
    p.agree(out.left.size() != 0 && out.right.size() != 0);
    return out;
}

LOWRANK_INLINE lokr_adapter<float> join_lokr(relative_parts& p, const peft_rules& rules) {
    const index r = rules.r_for(p.module());
    return {.w1 = join_lokr_factor(p, "lokr_w1", "lokr_w1_a", "lokr_w1_b", r),
            .w2 = join_lokr_factor(p, "lokr_w2", "lokr_w2_a", "lokr_w2_b", r),
            .alpha = rules.alpha_for(p.module()),
            .r = r};
}

}  // namespace detail

template <>
struct peft_kind<lokr_adapter<float>> {
    using module = lokr_adapter<float>;
    static constexpr std::string_view type = "LOKR";
    static constexpr std::string_view leaves[] = {"lokr_w1",   "lokr_w1_a", "lokr_w1_b", "lokr_w2",
                                                  "lokr_w2_a", "lokr_w2_b", "lokr_t2"};
    static const char* label(const module&) { return "LoKr"; }
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) { return {m.rows(), m.cols()}; }
    static bool fit(module&, index, index) { return true; }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) { return {m.r, m.alpha}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    /// Columns of the factors that `change` forms.
    static index formed_rank(const module& m) { return m.w1.left.cols() * m.w2.left.cols(); }
    /// The same change, with rows that are formed when they are needed.
    LOWRANK_INLINE static peft_change change_without_factors(const module& m) {
        return {.weight = added_rows_change{added_rows(m)}};
    }
    LOWRANK_INLINE static module join(detail::relative_parts& p, [[maybe_unused]] const detail::peft_context& c) {
        return detail::join_lokr(p, c.rules);
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) {
        const auto factor = [&](const std::string& name, const lokr_factor<float>& f) {
            to.add(f.whole() ? name : name + "_a", f.left);
            if (!f.whole()) {
                to.add(name + "_b", f.right);
            }
        };
        factor(".lokr_w1", m.w1);
        factor(".lokr_w2", m.w2);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LOKR_HPP

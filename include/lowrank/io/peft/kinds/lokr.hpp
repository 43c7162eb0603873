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
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/lokr.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE lokr_factor<float> join_lokr_factor(peft_parts& p, const char* whole, const char* a, const char* b,
                                                   std::optional<index> r) {
    if (p.has(whole)) {
        lokr_factor<float> out{.left = p.take(whole)};
        p.agree(out.left.size() != 0);
        return out;
    }
    lokr_factor<float> out{.left = p.take(a), .right = p.take(b)};
    if (std::string_view(whole) == "lokr_w2") {
        p.unfold_tucker("lokr_t2", out.left, out.right);
    }
    p.agree(out.left.cols() == out.right.rows() && (!r || out.left.cols() == *r));
    p.agree(out.left.size() != 0 && out.right.size() != 0);
    return out;
}

LOWRANK_INLINE lokr_adapter<float> join_lokr(peft_parts& p, std::optional<index> r) {
    return {.w1 = join_lokr_factor(p, "lokr_w1", "lokr_w1_a", "lokr_w1_b", r),
            .w2 = join_lokr_factor(p, "lokr_w2", "lokr_w2_a", "lokr_w2_b", r)};
}

}  // namespace detail

template <>
struct peft_kind<lokr_adapter<float>> {
    using module = lokr_adapter<float>;
    LOWRANK_INLINE static std::vector<std::string_view> leaves() {
        return {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"};
    }
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {
            {.name = "LOKR",
             .r_key = "r",
             .r = 8,
             .alpha_key = "alpha",
             .alpha = 8,
             .has_rank_pattern = true,
             .has_alpha_pattern = true,
             .leaves = leaves(),
             .folded = {"lokr_t2"},
             .folded_key = "use_effective_conv2d",
             .known = {"decompose_both", "decompose_factor", "module_dropout", "rank_dropout", "rank_dropout_scale"}}};
    }
    static const char* label(const module&) { return "LoKr"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.rows(), m.cols()}; }
    static bool fit(module&, index, index) { return true; }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.r, m.alpha}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    /// Columns of the factors that `change` forms.
    static index formed_rank(const module& m) { return m.w1.left.cols() * m.w2.left.cols(); }
    /// The same change, with rows that are formed when they are needed.
    LOWRANK_INLINE static peft_change change_without_factors(const module& m) {
        return {.weight = added_rows_change{added_rows(m)}};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        module out = detail::join_lokr(p, c.r);
        out.alpha = c.alpha;
        out.r = c.r;
        return out;
    }
    LOWRANK_INLINE static const char* differs(const peft_options&, const std::string&, const module& m) {
        const auto is_of_r = [&](const lokr_factor<float>& f) { return f.whole() || f.left.cols() == m.r; };
        return is_of_r(m.w1) && is_of_r(m.w2) ? nullptr : "rank of a factor";
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const auto factor = [&](const std::string& name, const lokr_factor<float>& f) {
            to.add(f.whole() ? name : name + "_a", f.left);
            if (!f.whole()) {
                to.add(name + "_b", f.right);
            }
        };
        factor("lokr_w1", m.w1);
        factor("lokr_w2", m.w2);
    }
    /// The rank is that of the tensors, alpha without a number is the rank, and the scaling of two whole matrices is 1
    /// whatever their alpha says.
    struct lycoris {
        LOWRANK_INLINE static std::vector<std::string_view> leaves() { return peft_kind::leaves(); }
        static bool holds(const module&) { return true; }
        LOWRANK_INLINE static module join(peft_parts& p, std::optional<double> alpha) {
            module out = detail::join_lokr(p, std::nullopt);
            const auto& factor = out.w2.whole() ? out.w1 : out.w2;
            const bool both_whole = factor.whole();
            out.r = both_whole ? 1 : factor.left.cols();
            out.alpha = both_whole ? 1 : alpha.value_or(static_cast<double>(out.r));
            return out;
        }
        LOWRANK_INLINE static double write(const module& m, peft_tensors& to) {
            module scaled = m;
            const bool both_whole = m.w1.whole() && m.w2.whole();
            if (both_whole) {
                scaled.w1.left *= m.scaling();
            }
            peft_kind::write(scaled, to);
            return detail::alpha_or_rank(both_whole ? static_cast<double>(m.r) : m.alpha, m.r, to);
        }
    };
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LOKR_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LOHA_HPP
#define LOWRANK_IO_PEFT_KINDS_LOHA_HPP

/// \file
/// LoHa in an adapter of PEFT or LyCORIS: two pairs of factors a module, or kernels apart from them.
///
///     const lowrank::peft_module module = lowrank::loha_adapter<float>{};    // in an adapter of peft_type LOHA
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/loha.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// `r` is that of the configuration, if there is one.
LOWRANK_INLINE loha_adapter<float> join_loha(peft_parts& p, double alpha, std::optional<index> r) {
    loha_adapter<float> out{.w1_a = p.take("hada_w1_a"),
                            .w1_b = p.take("hada_w1_b"),
                            .w2_a = p.take("hada_w2_a"),
                            .w2_b = p.take("hada_w2_b"),
                            .alpha = alpha};
    p.unfold_tucker("hada_t1", out.w1_a, out.w1_b);
    p.unfold_tucker("hada_t2", out.w2_a, out.w2_b);
    p.agree(out.w1_a.cols() == out.w1_b.rows() && out.w2_a.cols() == out.w2_b.rows() &&
            out.w1_a.rows() == out.w2_a.rows() && out.w1_b.cols() == out.w2_b.cols());
    p.agree(!r || out.w1_b.rows() == *r);
    p.agree(out.w1_a.size() != 0 && out.w1_b.size() != 0 && out.w2_a.size() != 0 && out.w2_b.size() != 0);
    return out;
}

}  // namespace detail

template <>
struct peft_kind<loha_adapter<float>> {
    using module = loha_adapter<float>;
    LOWRANK_INLINE static std::vector<std::string_view> leaves() {
        return {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"};
    }
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "LOHA",
                 .r_key = "r",
                 .r = 8,
                 .alpha_key = "alpha",
                 .alpha = 8,
                 .has_rank_pattern = true,
                 .has_alpha_pattern = true,
                 .leaves = leaves(),
                 .folded = {"hada_t1", "hada_t2"},
                 .folded_key = "use_effective_conv2d",
                 .known = {"module_dropout", "rank_dropout", "rank_dropout_scale"}}};
    }
    static const char* label(const module&) { return "LoHa"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.rows(), m.cols()}; }
    static bool fit(module&, index, index) { return true; }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.w1_b.rows(), m.alpha}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    /// Columns of the factors that `change` forms.
    static index formed_rank(const module& m) { return m.w1_b.rows() * m.w2_b.rows(); }
    /// The same change, with rows that are formed when they are needed.
    LOWRANK_INLINE static peft_change change_without_factors(const module& m) {
        return {.weight = added_rows_change{added_rows(m)}};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        return detail::join_loha(p, c.alpha, c.r);
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("hada_w1_a", m.w1_a);
        to.add("hada_w1_b", m.w1_b);
        to.add("hada_w2_a", m.w2_a);
        to.add("hada_w2_b", m.w2_b);
    }
    /// The rank is that of the tensors; alpha without a number is the rank.
    struct lycoris {
        LOWRANK_INLINE static std::vector<std::string_view> leaves() { return peft_kind::leaves(); }
        static bool holds(const module&) { return true; }
        LOWRANK_INLINE static module join(peft_parts& p, std::optional<double> alpha) {
            auto out = detail::join_loha(p, 0, std::nullopt);
            out.alpha = alpha.value_or(static_cast<double>(out.w1_b.rows()));
            return out;
        }
        LOWRANK_INLINE static double write(const module& m, peft_tensors& to) {
            peft_kind::write(m, to);
            return detail::alpha_or_rank(m.alpha, m.w1_b.rows(), to);
        }
    };
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LOHA_HPP

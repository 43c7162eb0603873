// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_STRUCTURED_GRALORA_HPP
#define LOWRANK_IO_PEFT_KINDS_STRUCTURED_GRALORA_HPP

/// \file
/// GraLoRA in an adapter of PEFT: two stacks of factors a module, and two factors more with a hybrid rank.
///
///     const lowrank::peft_module module = lowrank::make_gralora<float>(12, 8, {.r = 4, .k = 2, .hybrid_r = 1});
///
/// Names and shapes follow huggingface/peft.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/structured/gralora.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <>
struct peft_kind<gralora_adapter<float>> {
    using module = gralora_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "GRALORA",
                 .r_key = "r",
                 .r = 32,
                 .alpha_key = "alpha",
                 .alpha = 64,
                 .dropout_key = "gralora_dropout",
                 .has_bias = true,
                 .bias_only = "gralora_only",
                 .has_fan_in_fan_out = true,
                 .leaves = {"gralora_A_general.weight", "gralora_B_general.weight", "gralora_A", "gralora_B"},
                 .keys = {{"gralora_k", std::int64_t{2}}, {"hybrid_r", std::int64_t{0}}},
                 .defaults = usual_peft_defaults}};
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        return o.contains("gralora_k") && o.get<std::int64_t>("gralora_k") < 1
                   ? wrong_value("gralora_k", "positive", std::to_string(o.get<std::int64_t>("gralora_k")))
                   : status{};
    }
    static const char* label(const module&) { return "GraLoRA"; }
    static module_shape shape(const module& m) { return {.out = m.rows(), .in = m.cols()}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.rank(), m.alpha, m.dropout}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    /// Columns of the factors that `change` forms.
    static index formed_rank(const module& m) { return m.k * m.rank() + m.hybrid_rank(); }
    /// The same change, with rows that are formed when they are needed.
    LOWRANK_INLINE static peft_change change_without_factors(const module& m) {
        return {.weight = added_rows_change{added_rows(m)}};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        const auto k = static_cast<index>(c.options.get<std::int64_t>("gralora_k"));
        const auto hybrid = static_cast<index>(c.options.get<std::int64_t>("hybrid_r"));
        module m{.gralora_A = p.take_blocks("gralora_A", 3),
                 .gralora_B = p.take_blocks("gralora_B", 3),
                 .k = k,
                 .alpha = c.alpha,
                 .dropout = c.dropout};
        if (hybrid != 0 || p.has("gralora_A_general.weight") || p.has("gralora_B_general.weight")) {
            m.gralora_A_general = p.take_blocks("gralora_A_general.weight", 2);
            m.gralora_B_general = p.take_blocks("gralora_B_general.weight", 2);
        }
        if (!p.why) {
            return m;
        }
        p.expect_of_config(m.rank() == c.r, "rank " + std::to_string(m.rank()));
        p.expect_of_config(m.hybrid_rank() == hybrid, "hybrid rank " + std::to_string(m.hybrid_rank()));
        for (const char* leaf : {"gralora_A", "gralora_B"}) {
            const std::uint64_t blocks = p.find(leaf)->shape[0];
            p.expect_of_config(blocks == detail::extent(k),
                               std::to_string(blocks) + " blocks in its " + std::string(leaf));
        }
        p.agree(m.gralora_A.size() != 0 && m.gralora_B.size() != 0 && m.rank() % k == 0 &&
                m.gralora_B.rows() == k * m.rank() &&
                (hybrid == 0 || (m.gralora_A_general.cols() == m.cols() && m.gralora_B_general.cols() == hybrid &&
                                 m.gralora_B_general.rows() == m.rows())));
        return m;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const std::uint64_t k = detail::extent(m.k);
        const std::uint64_t r = detail::extent(m.rank());
        to.add("gralora_A", {k, detail::extent(m.cols()) / k, r}, m.gralora_A);
        to.add("gralora_B", {k, r, detail::extent(m.gralora_B.cols())}, m.gralora_B);
        if (m.hybrid_rank() != 0) {
            to.add("gralora_A_general.weight", m.gralora_A_general);
            to.add("gralora_B_general.weight", m.gralora_B_general);
        }
    }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            detail::expects(m->k == all.front()->k && m->hybrid_rank() == all.front()->hybrid_rank(),
                            "peft_config_for: the modules must agree on k and the hybrid rank");
            o.set("gralora_k", static_cast<std::int64_t>(m->k));
            o.set("hybrid_r", static_cast<std::int64_t>(m->hybrid_rank()));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return static_cast<std::int64_t>(m.k) != o.get<std::int64_t>("gralora_k")              ? "gralora_k"
               : static_cast<std::int64_t>(m.hybrid_rank()) != o.get<std::int64_t>("hybrid_r") ? "hybrid_r"
                                                                                               : nullptr;
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_STRUCTURED_GRALORA_HPP

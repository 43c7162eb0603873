// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LORA_FORMS_KASA_HPP
#define LOWRANK_IO_PEFT_KINDS_LORA_FORMS_KASA_HPP

/// \file
/// KaSA in an adapter of PEFT: LoRA with kasa_config, which has a diagonal between its factors and a base without its
/// smallest singular components.
///
///     auto adapter = lowrank::read_peft("mine", {.base_is_residual = true});     // the caller's base is that one
///
/// on_original_base (formats/original_base.hpp) makes plain LoRA of the original base from it. Names and shapes follow
/// huggingface/peft.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/lora_forms/kasa.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <>
struct peft_kind<kasa_adapter<float>> {
    using module = kasa_adapter<float>;
    static constexpr bool is_second_form = true;
    static constexpr const char* key = "kasa_config";

    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "LORA",
                 .leaves = {"lora_A.weight", "lora_B.weight", "lora_diag"},
                 .keys = {{.name = key,
                           .normal = peft_fields{},
                           .normal_is_null = true,
                           .is_rare = true,
                           .changes_base = true}}}};
    }
    LOWRANK_INLINE static bool claims(const peft_options& o, std::string_view) {
        return !o.get<peft_fields>(key).empty();
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        return claims(o, "") && o.get<bool>(magnitude_names::option)
                   ? status{errc::unsupported,
                            std::string(key) + " and " + magnitude_names::option + " exclude each other"}
                   : status{};
    }
    static const char* label(const module&) { return "KaSA"; }
    static module_shape shape(const module& m) { return {.out = m.lora_B.rows(), .in = m.lora_A.cols()}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.lora_A.rows(), m.lora_alpha, m.lora_dropout}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        p.expect_only({"lora_A.weight", "lora_B.weight", "lora_diag"});
        module m{.lora_A = p.take_blocks("lora_A.weight", 2),
                 .lora_B = p.take_blocks("lora_B.weight", 2),
                 .lora_diag = p.take_vector("lora_diag", c.r),
                 .lora_alpha = c.alpha,
                 .use_rslora = c.options.get<bool>("use_rslora"),
                 .lora_dropout = c.dropout};
        p.expect_of_config(m.lora_A.rows() == c.r, "rank " + std::to_string(m.lora_A.rows()));
        p.agree(m.lora_A.size() != 0 && m.lora_B.size() != 0 && m.lora_B.cols() == m.lora_A.rows());
        return m;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("lora_A.weight", m.lora_A);
        to.add("lora_B.weight", m.lora_B);
        to.add("lora_diag", {detail::extent(m.lora_diag.size())}, m.lora_diag);
    }
    /// The penalties of training are kept where there are some, else PEFT's.
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        if (all.empty()) {
            o.set(key, peft_fields{});
        } else if (!claims(o, "")) {
            o.set(key, peft_fields{{"beta", 1e-4}, {"gamma", 1e-3}});
        }
        detail::fit_rslora(o, all, [](const module& m) { return m.use_rslora; });
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return m.use_rslora != o.get<bool>("use_rslora") ? "use_rslora" : nullptr;
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LORA_FORMS_KASA_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LORA_FORMS_BDLORA_HPP
#define LOWRANK_IO_PEFT_KINDS_LORA_FORMS_BDLORA_HPP

/// \file
/// BD-LoRA in an adapter of PEFT: LoRA with use_bdlora, which says by parts of their names whose A or B is block-diagonal.
///
///     const lowrank::peft_module module = lowrank::make_bdlora<float>(12, 8, {.r = 4, .blocks_B = 2});
///
/// Names, shapes and the rule for names follow huggingface/peft.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/lora_forms/bdlora.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <>
struct peft_kind<bdlora_adapter<float>> {
    using module = bdlora_adapter<float>;
    static constexpr bool is_second_form = true;
    static constexpr const char* key = "use_bdlora";

    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "LORA",
                 .leaves = {"lora_A.weight", "lora_B.weight"},
                 .keys = {{.name = key, .normal = peft_fields{}, .normal_is_null = true, .is_rare = true}}}};
    }
    LOWRANK_INLINE static bool claims(const peft_options& o, std::string_view module) {
        return is_listed(o, "target_modules_bd_a", module) || is_listed(o, "target_modules_bd_b", module);
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        const auto fields = o.get<peft_fields>(key);
        for (const auto& [name, value] : fields) {
            const bool is_null = std::holds_alternative<std::monostate>(value);
            const bool is_list = std::holds_alternative<std::vector<std::string>>(value);
            if (name == "match_strict" ? !std::holds_alternative<bool>(value)
                : name == "nblocks"    ? !(std::holds_alternative<std::int64_t>(value) && blocks_of(o) >= 1)
                : name == "target_modules_bd_a" || name == "target_modules_bd_b" ? !is_null && !is_list
                                                                                 : true) {
                return {errc::unsupported, std::string(key) + " has a field " + detail::in_quotes(name) +
                                               " that is not understood; block-diagonal factors are described by "
                                               "target_modules_bd_a, target_modules_bd_b, nblocks and match_strict"};
            }
        }
        return fields.empty() || !o.get<bool>(magnitude_names::option)
                   ? status{}
                   : status{errc::unsupported,
                            std::string(key) + " and " + magnitude_names::option + " exclude each other"};
    }
    static const char* label(const module&) { return "BD-LoRA"; }
    static bool in_peft(const module& m) { return m.blocks_A == 1 || m.blocks_B == 1; }
    static module_shape shape(const module& m) { return {.out = m.rows(), .in = m.cols()}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.rank(), m.lora_alpha, m.lora_dropout}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        const bool of_a = is_listed(c.options, "target_modules_bd_a", p.module());
        if (of_a && is_listed(c.options, "target_modules_bd_b", p.module())) {
            p.fail(errc::invalid_format,
                   std::string("matches both target_modules_bd_a and target_modules_bd_b of ") + key);
        }
        p.expect_only({"lora_A.weight", "lora_B.weight"});
        const index blocks = blocks_of(c.options);
        module m{.lora_A = p.take_blocks("lora_A.weight", 2),
                 .lora_B = p.take_blocks("lora_B.weight", 2),
                 .blocks_A = of_a ? blocks : 1,
                 .blocks_B = of_a ? 1 : blocks,
                 .lora_alpha = c.alpha,
                 .use_rslora = c.options.get<bool>("use_rslora"),
                 .lora_dropout = c.dropout};
        p.expect_of_config(m.rank() == c.r, "rank " + std::to_string(m.rank()));
        p.agree(m.lora_A.size() != 0 && m.lora_B.size() != 0 && m.lora_B.cols() * m.blocks_B == m.rank() &&
                m.rank() % m.blocks_A == 0 && m.rows() % m.blocks_B == 0);
        const auto& cut = of_a ? m.lora_A : m.lora_B;
        if (p.why && !detail::may_unfold(detail::extent(cut.rows()), detail::extent(cut.cols() * blocks),
                                         detail::extent(cut.size()))) {
            p.fail(errc::unsupported, "has " + std::to_string(blocks) +
                                          " blocks, more than can be meant for a matrix "
                                          "of its size");
        }
        return m;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("lora_A.weight", m.lora_A);
        to.add("lora_B.weight", m.lora_B);
    }
    /// Every module by its whole path, unless the options describe them already.
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>& names,
                                           std::span<const module* const> all) {
        detail::fit_rslora(o, all, [](const module& m) { return m.use_rslora; });
        bool fits = !all.empty();
        for (std::size_t i = 0; i < all.size(); ++i) {
            fits = fits && claims(o, names[i]) && differs(o, names[i], *all[i]) == nullptr;
        }
        if (fits) {
            return;
        }
        std::int64_t blocks = 1;
        std::vector<std::string> of_a;
        std::vector<std::string> of_b;
        for (std::size_t i = 0; i < all.size(); ++i) {
            const index has = std::max(all[i]->blocks_A, all[i]->blocks_B);
            detail::expects(i == 0 || static_cast<std::int64_t>(has) == blocks,
                            "peft_config_for: the modules must agree on the number of blocks");
            blocks = static_cast<std::int64_t>(has);
            (all[i]->blocks_A > 1 ? of_a : of_b).push_back(names[i]);
        }
        o.set(key, all.empty() ? peft_fields{}
                               : peft_fields{{"match_strict", false},
                                             {"nblocks", blocks},
                                             {"target_modules_bd_a", of_a},
                                             {"target_modules_bd_b", of_b}});
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string& name, const module& m) {
        const bool of_a = is_listed(o, "target_modules_bd_a", name);
        const index blocks = blocks_of(o);
        return m.blocks_A != (of_a ? blocks : 1) || m.blocks_B != (of_a ? 1 : blocks) ? key
               : m.use_rslora != o.get<bool>("use_rslora")                            ? "use_rslora"
                                                                                      : nullptr;
    }

private:
    /// Whether a name of the list is a part of the module's.
    LOWRANK_INLINE static bool is_listed(const peft_options& o, const std::string& list, std::string_view module) {
        const auto names = field_of<std::vector<std::string>>(o.get<peft_fields>(key), list);
        return std::any_of(names.begin(), names.end(),
                           [&](const std::string& name) { return module.find(name) != std::string_view::npos; });
    }
    LOWRANK_INLINE static index blocks_of(const peft_options& o) {
        const auto fields = o.get<peft_fields>(key);
        const std::int64_t blocks = fields.contains("nblocks") ? field_of<std::int64_t>(fields, "nblocks") : 1;
        return blocks <= (std::int64_t{1} << 24) ? static_cast<index>(blocks) : 0;
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LORA_FORMS_BDLORA_HPP

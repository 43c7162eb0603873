// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LORA_FORMS_QALORA_HPP
#define LOWRANK_IO_PEFT_KINDS_LORA_FORMS_QALORA_HPP

/// \file
/// QA-LoRA in an adapter of PEFT: LoRA with use_qalora, whose A acts on means of qalora_group_size inputs.
///
///     const lowrank::peft_module module = lowrank::make_qalora<float>(12, 8, 4, {.r = 3});
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
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/lora_forms/qalora.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <>
struct peft_kind<qalora_adapter<float>> {
    using module = qalora_adapter<float>;
    static constexpr bool is_second_form = true;
    static constexpr const char* key = "use_qalora";
    static constexpr const char* size_key = "qalora_group_size";

    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "LORA",
                 .leaves = {"lora_A.weight", "lora_B.weight"},
                 .keys = {{key, false}, {.name = size_key, .normal = std::int64_t{16}, .is_rare = true}}}};
    }
    LOWRANK_INLINE static bool claims(const peft_options& o, std::string_view) { return o.get<bool>(key); }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        if (!o.get<bool>(key)) {
            return {};
        }
        if (o.contains(size_key) && !(1 <= group_size_of(o) && group_size_of(o) <= (index{1} << 24))) {
            return wrong_value(size_key, "positive", std::to_string(group_size_of(o)));
        }
        return o.get<bool>(magnitude_names::option)
                   ? status{errc::unsupported,
                            std::string(key) + " and " + magnitude_names::option + " exclude each other"}
                   : status{};
    }
    static const char* label(const module&) { return "QA-LoRA"; }
    static module_shape shape(const module& m) { return {.out = m.rows(), .in = m.cols()}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.lora.rank(), m.lora.lora_alpha, m.lora.lora_dropout}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        p.expect_only({"lora_A.weight", "lora_B.weight"});
        module m{.lora = {.lora_A = p.take_blocks("lora_A.weight", 2),
                          .lora_B = p.take_blocks("lora_B.weight", 2),
                          .lora_alpha = c.alpha,
                          .use_rslora = c.options.get<bool>("use_rslora"),
                          .lora_dropout = c.dropout},
                 .group_size = group_size_of(c.options)};
        p.expect_of_config(m.lora.rank() == c.r, "rank " + std::to_string(m.lora.rank()));
        p.agree(m.lora.lora_A.size() != 0 && m.lora.lora_B.size() != 0 && m.lora.lora_B.cols() == m.lora.rank());
        // A is stored for one group of inputs a column; groups as large as a hostile number are not unfolded.
        if (p.why && !detail::may_unfold(detail::extent(m.lora.rank()), detail::extent(m.cols()),
                                         detail::extent(m.lora.lora_A.size()))) {
            p.fail(errc::unsupported, "has groups of " + std::to_string(m.group_size) +
                                          " inputs, more than can be meant for a matrix of its size");
        }
        return m;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("lora_A.weight", m.lora.lora_A);
        to.add("lora_B.weight", m.lora.lora_B);
    }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        o.set(key, !all.empty());
        detail::fit_rslora(o, all, [](const module& m) { return m.lora.use_rslora; });
        for (const module* m : all) {
            detail::expects(m->group_size == all.front()->group_size,
                            "peft_config_for: the modules must agree on the size of groups");
            o.set(size_key, static_cast<std::int64_t>(m->group_size));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return m.group_size != group_size_of(o)                 ? size_key
               : m.lora.use_rslora != o.get<bool>("use_rslora") ? "use_rslora"
                                                                : nullptr;
    }

private:
    LOWRANK_INLINE static index group_size_of(const peft_options& o) {
        return static_cast<index>(o.get<std::int64_t>(size_key));
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LORA_FORMS_QALORA_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_MISS_HPP
#define LOWRANK_IO_PEFT_KINDS_MISS_HPP

/// \file
/// MiSS in an adapter of PEFT, both of its forms: one matrix a module.
///
///     const lowrank::peft_module module = lowrank::miss_adapter<float>{};    // in an adapter of peft_type MISS
///
/// Names and shapes follow huggingface/peft.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/miss.hpp>
#include <lowrank/lora/kinds/miss_bat.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// "BONE" is the same under its older name, without the form "mini".
LOWRANK_INLINE std::vector<peft_type> miss_types() {
    peft_type now{.name = "MISS",
                  .r_key = "r",
                  .r = 64,
                  .dropout_key = "miss_dropout",
                  .has_bias = true,
                  .leaves = {"miss_block"},
                  .keys = {{"init_weights", true, true}, {"mini_r", std::int64_t{1}}},
                  .defaults = usual_peft_defaults};
    peft_type once = now;
    once.name = "BONE";
    once.dropout_key = {};
    once.leaves = {"bone_block"};
    once.keys.pop_back();
    return {std::move(now), std::move(once)};
}

}  // namespace detail

template <>
struct peft_kind<miss_bat_adapter<float>> {
    using module = miss_bat_adapter<float>;
    static constexpr bool is_second_form = true;
    LOWRANK_INLINE static std::vector<peft_type> types() { return detail::miss_types(); }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        if (!all.empty()) {
            o.set("init_weights", std::string("bat"));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module&) {
        return o.get<std::string>("init_weights") == "bat" ? nullptr : "form";
    }
    static const char* label(const module&) { return "MiSS (bat)"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.out(), m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        const bool fits = m.out() == out && in % m.rank() == 0;
        m.in = fits ? in : m.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.rank(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.in == 0) {
            return {};
        }
        return {.weight = row_change{miss_bat_rows(m)}};
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const std::uint64_t r = detail::extent(m.rank());
        to.add("miss_block", {r == 0 ? 0 : detail::extent(m.out()) / r, r, r}, m.miss_block);
    }
};

template <>
struct peft_kind<miss_adapter<float>> {
    using module = miss_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() { return detail::miss_types(); }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view type, std::vector<std::string>&) {
        const auto form = o.get<std::string>("init_weights");
        return form.empty() || form == "bat" || (form == "mini" && type == types().front().name)
                   ? status{}
                   : wrong_value("init_weights", "true, false, \"bat\" or, for MiSS, \"mini\"",
                                 detail::in_quotes(form));
    }
    static const char* label(const module&) { return "MiSS"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.out, m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        const bool fits = (m.out == 0 || m.out == out) && out % m.miss_block.cols() == 0;
        m.out = fits ? out : m.out;
        m.in = fits ? in : m.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.rank(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.out == 0 || m.in == 0) {
            return {};
        }
        return {.weight = m.delta()};
    }
    /// Reads both forms: the tensor's dimensions tell them apart.
    LOWRANK_INLINE static peft_module join(peft_parts& p, const peft_context& c) {
        const std::string leaf = p.has("bone_block") ? "bone_block" : "miss_block";
        const auto form = c.options.get<std::string>("init_weights");
        const tensor_info* t = p.find(leaf);
        const bool is_bat = t != nullptr && t->shape.size() == 3;
        if (t != nullptr) {
            p.expect_of_config(is_bat == (form == "bat"),
                               "a " + leaf + " of shape " + detail::shape_in_words(t->shape));
        }
        if (is_bat) {
            miss_bat_adapter<float> bat{.miss_block = p.take_blocks(leaf, 3)};
            p.agree(t->shape[1] == t->shape[2]);
            p.expect_of_config(bat.rank() == c.r, "blocks of " + std::to_string(bat.rank()));
            return bat;
        }
        miss_adapter<float> out{.miss_block = p.take_blocks(leaf, 2)};
        p.expect_of_config(out.rank() == c.r, "rank " + std::to_string(out.rank()));
        p.agree(out.miss_block.cols() >= 1);
        if (form == "mini") {
            p.expect_of_config(out.miss_block.cols() == static_cast<index>(c.options.get<std::int64_t>("mini_r")),
                               std::to_string(out.miss_block.cols()) + " columns");
        } else {
            out.out = out.miss_block.cols();
        }
        return out;
    }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            const auto columns = static_cast<std::int64_t>(m->miss_block.cols());
            if (m->miss_block.cols() != m->out) {
                o.set("init_weights", std::string("mini"));
                o.set("mini_r", columns);
            } else if (o.get<std::string>("init_weights") == "bat") {
                o.set("init_weights", true);
            }
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        const auto form = o.get<std::string>("init_weights");
        const index columns = m.miss_block.cols();
        const bool fits = form == "mini" ? columns == static_cast<index>(o.get<std::int64_t>("mini_r"))
                                         : form.empty() && columns == m.out;
        return fits ? nullptr : "form";
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) { to.add("miss_block", m.miss_block); }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_MISS_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_STRUCTURED_SHIRA_HPP
#define LOWRANK_IO_PEFT_KINDS_STRUCTURED_SHIRA_HPP

/// \file
/// SHiRA in an adapter of PEFT: the entries of a sparse change, their rows and columns as integers beside them.
///
///     const lowrank::peft_module module = lowrank::shira_adapter<float>{};    // in an adapter of peft_type SHIRA
///
/// Names and shapes follow huggingface/peft, which writes the integers as F32 on Windows.

#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/structured/shira.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The shape of the weight is not in the file; r (out + in) entries say their sum.
LOWRANK_INLINE shira_adapter<float> join_shira(peft_parts& p, const peft_context& c) {
    shira_adapter<float> out{.shira_indices = p.take_indices("shira_indices", 2, index{1} << 24, 2),
                             .shira_weight = p.take_vector("shira_weight"),
                             .r = c.r};
    p.agree(out.shira_indices.cols() == out.shira_weight.size());
    p.expect_of_config(out.shira_weight.size() >= 2 * c.r && out.shira_weight.size() % c.r == 0,
                       std::to_string(out.shira_weight.size()) + " entries, not a multiple of r");
    return out;
}

}  // namespace detail

template <>
struct peft_kind<shira_adapter<float>> {
    using module = shira_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "SHIRA",
                 .r_key = "r",
                 .r = 32,
                 .has_fan_in_fan_out = true,
                 .leaves = {"shira_weight", "shira_indices"},
                 .integers = {"shira_indices"},
                 .known = {"mask_type", "random_seed"},  // the file says which entries they are
                 .defaults = R"({"init_weights":true,"mask_type":"random","random_seed":null})"}};
    }
    static const char* label(const module&) { return "SHiRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.out, m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        bool fits = m.r >= 1 && m.shira_weight.size() == m.r * (out + in);
        for (index k = 0; fits && k < m.shira_indices.cols(); ++k) {
            fits = m.shira_indices(0, k) < out && m.shira_indices(1, k) < in;
        }
        m.out = fits ? out : m.out;
        m.in = fits ? in : m.in;
        return fits;
    }
    static const char* misfit(const module&, index, index) {
        return "it needs r (out + in) entries, all of them inside of the weight";
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.r, 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.out == 0) {
            return {};
        }
        return {.weight = m.change()};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_shira(p, c); }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("shira_weight", {detail::extent(m.shira_weight.size())}, m.shira_weight);
        to.add("shira_indices", m.shira_indices.cast<float>());
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_STRUCTURED_SHIRA_HPP

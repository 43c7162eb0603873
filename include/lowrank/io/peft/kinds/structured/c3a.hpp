// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_STRUCTURED_C3A_HPP
#define LOWRANK_IO_PEFT_KINDS_STRUCTURED_C3A_HPP

/// \file
/// C3A in an adapter of PEFT: the kernels of the circulant blocks of a change.
///
///     const lowrank::peft_module module = lowrank::c3a_adapter<float>{};    // in an adapter of peft_type C3A
///
/// Names and shapes follow huggingface/peft.

#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/structured/c3a.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE c3a_adapter<float> join_c3a(peft_parts& p, const peft_context& c) {
    c3a_adapter<float> out{.c3a_kernel = p.take_blocks("c3a_kernel", 3)};
    p.agree(out.c3a_kernel.size() != 0);
    if (!p.why) {
        return out;
    }
    const auto& shape = p.find("c3a_kernel")->shape;
    const index b = out.block_size();
    out.out = static_cast<index>(shape[0]) * b;
    out.in = static_cast<index>(shape[1]) * b;
    p.expect_of_config(b == c.r, "blocks of " + std::to_string(b));
    return out;
}

}  // namespace detail

template <>
struct peft_kind<c3a_adapter<float>> {
    using module = c3a_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "C3A",
                 .r_key = "block_size",
                 .r = 256,
                 .has_rank_pattern = true,
                 .rank_pattern_key = "block_size_pattern",
                 .has_bias = true,
                 .bias_only = "c3a_only",
                 .leaves = {"c3a_kernel"},
                 .defaults = R"({"bias":"none","init_weights":true,"layers_pattern":null,
                                 "layers_to_transform":null})"}};
    }
    static const char* label(const module&) { return "C3A"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.out, m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) { return m.out == out && m.in == in; }
    /// The size of the blocks stands where other kinds have a rank.
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.block_size(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.change()}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_c3a(p, c); }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const index b = m.block_size();
        to.add("c3a_kernel", {detail::extent(m.out / b), detail::extent(m.in / b), detail::extent(b)}, m.c3a_kernel);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_STRUCTURED_C3A_HPP

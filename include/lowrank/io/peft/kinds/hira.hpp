// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_HIRA_HPP
#define LOWRANK_IO_PEFT_KINDS_HIRA_HPP

/// \file
/// HiRA in an adapter of PEFT: two factors a module.
///
///     const lowrank::peft_module module = lowrank::hira_adapter<float>{};    // in an adapter of peft_type HIRA
///
/// Names and shapes follow huggingface/peft.

#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/hira.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE hira_adapter<float> join_hira(peft_parts& p, index r) {
    if (p.has("hira_embedding_A") || p.has("hira_embedding_B")) {
        p.fail(errc::unsupported, "adapts an embedding table by HiRA, which is not supported");
        return {};
    }
    hira_adapter<float> out{.hira_A = p.take_blocks("hira_A", 2), .hira_B = p.take_blocks("hira_B", 2)};
    p.agree(out.hira_A.rows() == out.hira_B.cols());
    p.expect_of_config(out.hira_A.rows() == r, "rank " + std::to_string(out.hira_A.rows()));
    return out;
}

}  // namespace detail

template <>
struct peft_kind<hira_adapter<float>> {
    using module = hira_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "HIRA",
                 .r_key = "r",
                 .r = 32,
                 .dropout_key = "hira_dropout",
                 .has_rank_pattern = true,
                 .has_fan_in_fan_out = true,
                 .leaves = {"hira_A", "hira_B", "hira_embedding_A", "hira_embedding_B"},
                 .defaults = R"({"exclude_modules":null,"init_weights":true,"layers_pattern":null,
                                 "layers_to_transform":null})"}};
    }
    static const char* label(const module&) { return "HiRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.hira_B.rows(), m.hira_A.cols()}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        return m.hira_B.rows() == out && m.hira_A.cols() == in;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.hira_A.rows(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = row_change{hira_rows(m)}}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_hira(p, c.r); }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("hira_A", m.hira_A);
        to.add("hira_B", m.hira_B);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_HIRA_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_DELORA_HPP
#define LOWRANK_IO_PEFT_KINDS_DELORA_HPP

/// \file
/// DeLoRA in an adapter of PEFT: two factors, their strength, and the lengths of the base's columns.
///
///     const lowrank::peft_module module = lowrank::delora_adapter<float>{};    // in an adapter of peft_type DELORA
///
/// Names and shapes follow huggingface/peft.

#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/delora.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <>
struct peft_kind<delora_adapter<float>> {
    using module = delora_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "DELORA",
                 .r_key = "r",
                 .r = 8,
                 .dropout_key = "module_dropout",
                 .has_rank_pattern = true,
                 .has_bias = true,
                 .bias_only = "delora_only",
                 .leaves = {"delora_A", "delora_B", "delora_lambda", "delora_w_norm"},
                 .known = {"delora_lambda", "lambda_pattern"},  // of the start; the tensor says what it became
                 .defaults = R"({"bias":"none","delora_lambda":15,"exclude_modules":null,"init_weights":true,
                                 "lambda_pattern":{},"layers_pattern":null,"layers_to_transform":null})"}};
    }
    static const char* label(const module&) { return "DeLoRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.delora_B.rows(), m.delora_A.cols()}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        return m.delora_B.rows() == out && m.delora_A.cols() == in;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.rank(), 0, m.module_dropout}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        module out{.delora_A = p.take_blocks("delora_A", 2),
                   .delora_B = p.take_blocks("delora_B", 2),
                   .delora_lambda = p.take_vector("delora_lambda", 1)};
        if (!p.has("delora_w_norm")) {
            p.fail(errc::unsupported,
                   "lacks delora_w_norm, the lengths of the base's columns when the training began; save the adapter "
                   "again with a PEFT that keeps them");
        } else {
            out.delora_w_norm = p.take_vector("delora_w_norm");
        }
        p.agree(out.rank() >= 1 && out.delora_B.cols() == out.rank() &&
                out.delora_w_norm.size() == out.delora_A.cols());
        p.expect_of_config(out.rank() == c.r, "rank " + std::to_string(out.rank()));
        out.module_dropout = c.dropout;
        return out;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("delora_A", m.delora_A);
        to.add("delora_B", m.delora_B);
        to.add("delora_lambda", {1}, m.delora_lambda);
        to.add("delora_w_norm", {detail::extent(m.delora_w_norm.size())}, m.delora_w_norm);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_DELORA_HPP

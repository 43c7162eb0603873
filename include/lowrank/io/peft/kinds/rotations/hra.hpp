// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_ROTATIONS_HRA_HPP
#define LOWRANK_IO_PEFT_KINDS_ROTATIONS_HRA_HPP

/// \file
/// HRA in an adapter of PEFT: the directions of its reflections.
///
///     const lowrank::peft_module module = lowrank::hra_adapter<float>{};    // in an adapter of peft_type HRA
///
/// Names and shapes follow huggingface/peft.

#include <span>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/rotations/hra.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// True if Gram-Schmidt finds a direction in every column.
LOWRANK_INLINE bool has_independent_columns(const matrix<float>& u) {
    matrix<double> v = u.cast<double>();
    for (index k = 0; k < v.cols(); ++k) {
        const double before = v.col(k).norm();
        for (index j = 0; j < k; ++j) {
            v.col(k) -= v.col(j).dot(v.col(k)) * v.col(j);
        }
        const double norm = v.col(k).norm();
        if (!(norm > 2e-12 * before)) {
            return false;
        }
        v.col(k) /= norm;
    }
    return true;
}

LOWRANK_INLINE hra_adapter<float> join_hra(peft_parts& p, const peft_context& c) {
    hra_adapter<float> out{.hra_u = p.take_blocks("hra_u", 2), .apply_GS = c.options.get<bool>("apply_GS")};
    p.expect_of_config(out.hra_u.cols() == c.r && out.hra_u.rows() >= 1,
                       std::to_string(out.hra_u.cols()) + " reflections");
    if (p.why && out.apply_GS && (out.hra_u.cols() > out.hra_u.rows() || !has_independent_columns(out.hra_u))) {
        p.fail(errc::mismatch, "has dependent columns in hra_u, which apply_GS cannot make orthogonal");
    }
    return out;
}

}  // namespace detail

template <>
struct peft_kind<hra_adapter<float>> {
    using module = hra_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "HRA",
                 .r_key = "r",
                 .r = 8,
                 .has_bias = true,
                 .leaves = {"hra_u"},
                 .keys = {{"apply_GS", false}},
                 .defaults = usual_peft_defaults}};
    }
    static const char* label(const module&) { return "HRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {0, m.hra_u.rows()}; }
    LOWRANK_INLINE static bool fit(module& m, [[maybe_unused]] index out, index in) { return m.hra_u.rows() == in; }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.hra_u.cols(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        return {.weight = row_change{row_rotation(m.rotation(), m.output_scale())}};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_hra(p, c); }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            o.set("apply_GS", m->apply_GS);
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return m.apply_GS != o.get<bool>("apply_GS") ? "apply_GS" : nullptr;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) { to.add("hra_u", m.hra_u); }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_ROTATIONS_HRA_HPP

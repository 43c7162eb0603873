// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_HRA_HPP
#define LOWRANK_IO_PEFT_KINDS_HRA_HPP

/// \file
/// HRA in an adapter of PEFT: the directions of its reflections.
///
///     const lowrank::peft_module module = lowrank::hra_adapter<float>{};    // in an adapter of peft_type HRA
///
/// Names and shapes follow huggingface/peft.

#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/kinds/hra.hpp>

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

LOWRANK_INLINE hra_adapter<float> join_hra(relative_parts& p, const peft_lora_config& c) {
    hra_adapter<float> out{.hra_u = p.take_blocks("hra_u", 2), .apply_GS = c.kind.apply_GS};
    expect_of_config(p, out.hra_u.cols() == c.r && out.hra_u.rows() >= 1,
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
    static constexpr std::string_view type = "HRA";
    static constexpr std::string_view leaves[] = {"hra_u"};
    static const char* label(const module&) { return "HRA"; }
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) { return {0, m.hra_u.rows()}; }
    LOWRANK_INLINE static bool fit(module& m, [[maybe_unused]] index out, index in) { return m.hra_u.rows() == in; }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) { return {m.hra_u.cols(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        return {.weight = row_change{row_rotation(m.rotation(), m.output_scale())}};
    }
    LOWRANK_INLINE static module join(detail::relative_parts& p, [[maybe_unused]] const detail::peft_context& c) {
        return detail::join_hra(p, c.config);
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) { to.add(".hra_u", m.hra_u); }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_HRA_HPP

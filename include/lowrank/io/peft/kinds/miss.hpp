// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_MISS_HPP
#define LOWRANK_IO_PEFT_KINDS_MISS_HPP

/// \file
/// MiSS in an adapter of PEFT, both of its forms: one matrix a module.
///
///     const lowrank::peft_module module = lowrank::miss_adapter<float>{};    // in an adapter of peft_type MISS
///
/// Names and shapes follow huggingface/peft.

#include <string>
#include <string_view>
#include <variant>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/miss.hpp>
#include <lowrank/lora/kinds/miss_bat.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE std::variant<miss_adapter<float>, miss_bat_adapter<float>> join_miss(relative_parts& p,
                                                                                    const peft_lora_config& c) {
    const std::string leaf = c.peft_type == "BONE" ? "bone_block" : "miss_block";
    const tensor_info* t = p.find(leaf);
    const bool is_bat = t != nullptr && t->shape.size() == 3;
    if (t != nullptr) {
        expect_of_config(p, is_bat == (c.kind.form == "bat"), "a " + leaf + " of shape " + shape_in_words(t->shape));
    }
    if (is_bat) {
        miss_bat_adapter<float> bat{.miss_block = p.take_blocks(leaf, 3)};
        p.agree(t->shape[1] == t->shape[2]);
        expect_of_config(p, bat.rank() == c.r, "blocks of " + std::to_string(bat.rank()));
        return bat;
    }
    miss_adapter<float> out{.miss_block = p.take_blocks(leaf, 2)};
    expect_of_config(p, out.rank() == c.r, "rank " + std::to_string(out.rank()));
    p.agree(out.miss_block.cols() >= 1);
    if (c.kind.form == "mini") {
        expect_of_config(p, out.miss_block.cols() == static_cast<index>(c.kind.mini_r),
                         std::to_string(out.miss_block.cols()) + " columns");
    } else {
        out.out = out.miss_block.cols();
    }
    return out;
}

}  // namespace detail

template <>
struct peft_kind<miss_adapter<float>> {
    using module = miss_adapter<float>;
    static constexpr std::string_view type = "MISS";
    static constexpr std::string_view old_type = "BONE";  ///< The same under its older name.
    static constexpr std::string_view leaves[] = {"miss_block"};
    static constexpr std::string_view old_leaves[] = {"bone_block"};
    static const char* label(const module&) { return "MiSS"; }
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) { return {m.out, m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        const bool fits = (m.out == 0 || m.out == out) && out % m.miss_block.cols() == 0;
        m.out = fits ? out : m.out;
        m.in = fits ? in : m.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) { return {m.rank(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.out == 0 || m.in == 0) {
            return {};
        }
        return {.weight = m.delta()};
    }
    /// Reads both forms: the tensor's dimensions tell them apart.
    LOWRANK_INLINE static auto join(detail::relative_parts& p, const detail::peft_context& c) {
        return detail::join_miss(p, c.config);
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) {
        to.add(".miss_block", m.miss_block);
    }
};

template <>
struct peft_kind<miss_bat_adapter<float>> {
    using module = miss_bat_adapter<float>;
    static constexpr std::string_view type = "MISS";
    static constexpr std::string_view old_type = "BONE";
    static constexpr const char* only_merges = "is MiSS of the form \"bat\"";
    static const char* label(const module&) { return "MiSS (bat)"; }
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) { return {m.out(), m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        const bool fits = m.out() == out && in % m.rank() == 0;
        m.in = fits ? in : m.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) { return {m.rank(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.in == 0) {
            return {};
        }
        return {.weight = row_change{miss_bat_rows(m)}};
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) {
        const std::uint64_t r = detail::extent(m.rank());
        to.add(".miss_block", {r == 0 ? 0 : detail::extent(m.out()) / r, r, r}, m.miss_block);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_MISS_HPP

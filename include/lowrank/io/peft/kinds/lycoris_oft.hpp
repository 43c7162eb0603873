// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LYCORIS_OFT_HPP
#define LOWRANK_IO_PEFT_KINDS_LYCORIS_OFT_HPP

/// \file
/// OFT of the outputs as LyCORIS has it. PEFT has no such thing, other tools' files do.
///
///     const lowrank::peft_module module = lowrank::lycoris_oft{};    // in an adapter of peft_type LYCORIS
///
/// Names and shapes follow huggingface/peft.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/formats/lycoris_oft.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <>
struct peft_kind<lycoris_oft> {
    using module = lycoris_oft;
    static constexpr std::string_view type = "LYCORIS";
    static constexpr std::array<std::string_view, 0> leaves = {};
    static constexpr const char* only_merges = "is OFT of the outputs";
    static const char* label(const module&) { return "OFT of the outputs (LyCORIS)"; }
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) { return {m.out(), 0}; }
    LOWRANK_INLINE static bool fit(module& m, index out, [[maybe_unused]] index in) { return m.out() == out; }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) { return {}; }
    /// What its change depends on besides its tensors.
    LOWRANK_INLINE static double constant(const module& m) { return m.constraint; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        return {.weight = row_change{detail::rotate_outputs(m), true}};
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) {
        const std::uint64_t b = detail::extent(m.block_size());
        std::vector<std::uint64_t> shape{detail::extent(m.block_count), b, b};
        if (m.is_butterfly) {
            shape.insert(shape.begin(), detail::extent(m.factor_count()));
        }
        to.add(".oft_blocks", shape, m.oft_blocks);
        if (m.rescale.size() != 0) {
            shape.assign(m.rescale_dimensions, 1);
            shape[0] = detail::extent(m.rescale.size());
            to.add(".rescale", shape, m.rescale);
        }
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LYCORIS_OFT_HPP

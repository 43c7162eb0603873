// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_OFT_HPP
#define LOWRANK_IO_PEFT_KINDS_OFT_HPP

/// \file
/// OFT in an adapter of PEFT: the triangles of its blocks.
///
///     const lowrank::peft_module module = lowrank::oft_adapter<float>{};    // in an adapter of peft_type OFT
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
#include <lowrank/lora/kinds/oft.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE oft_adapter<float> join_oft(relative_parts& p, const peft_kind_options& o) {
    if (p.has("oft_embedding_R")) {
        p.fail(errc::unsupported, "adapts an embedding table by OFT, which is not supported");
        return {};
    }
    oft_adapter<float> out{.oft_R = p.take_blocks("oft_R", 2),
                           .coft = o.coft,
                           .eps = o.eps,
                           .use_cayley_neumann = o.use_cayley_neumann,
                           .num_cayley_neumann_terms = static_cast<index>(o.num_cayley_neumann_terms)};
    if (!p.why) {
        return out;
    }
    const index blocks = out.oft_R.rows();
    const index b = out.oft_R.cols() > 0 ? out.block_size() : 1;
    if (blocks < 1 || b < 2 || b * (b - 1) / 2 != out.oft_R.cols()) {
        p.fail(errc::mismatch, "has an oft_R of shape [" + std::to_string(blocks) + ", " +
                                   std::to_string(out.oft_R.cols()) +
                                   "]; a row holds the b (b - 1) / 2 entries of a block of b x b");
        return out;
    }
    if (o.block_share && blocks == 1) {  // the weight says how many inputs there are
        return out;
    }
    out.in = blocks * b;
    const bool fits = o.block_size != 0 ? oft_block_size(out.in, static_cast<index>(o.block_size)) == b
                                        : oft_block_size(out.in, static_cast<index>(o.block_count)) == blocks;
    expect_of_config(p, !o.block_share && fits, std::to_string(blocks) + " blocks of " + std::to_string(b) + " inputs");
    return out;
}

}  // namespace detail

template <>
struct peft_kind<oft_adapter<float>> {
    using module = oft_adapter<float>;
    static constexpr std::string_view type = "OFT";
    static constexpr std::string_view leaves[] = {"oft_R", "oft_embedding_R"};
    static const char* label(const module&) { return "OFT"; }
    /// OFT's tensors end in ".weight".
    static constexpr bool ends_in_weight = true;
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) { return {0, m.in}; }
    LOWRANK_INLINE static bool fit(module& m, [[maybe_unused]] index out, index in) {
        const bool fits = m.in != 0 ? m.in == in : in > 0 && in % m.block_size() == 0;
        m.in = fits ? in : m.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) { return {}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.in == 0) {
            return {};
        }
        return {.weight = row_change{row_rotation(m.rotation(), m.output_scale())}};
    }
    LOWRANK_INLINE static module join(detail::relative_parts& p, [[maybe_unused]] const detail::peft_context& c) {
        return detail::join_oft(p, c.config.kind);
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) {
        to.add(".oft_R.weight", m.oft_R);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_OFT_HPP

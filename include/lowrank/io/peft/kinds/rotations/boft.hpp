// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_ROTATIONS_BOFT_HPP
#define LOWRANK_IO_PEFT_KINDS_ROTATIONS_BOFT_HPP

/// \file
/// BOFT in an adapter of PEFT: the blocks of its factors and a scale of the outputs.
///
///     const lowrank::peft_module module = lowrank::peft_boft{};    // in an adapter of peft_type BOFT
///
/// Names and shapes follow huggingface/peft.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/rotations/boft.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// BOFT, of a linear layer or of a convolution, whose scale PEFT stores as a row.
struct peft_boft {
    boft_adapter<float> boft = {};
    bool is_convolution = false;
};

namespace detail {

/// The blocks that a configuration says: one of size and count is 0.
struct boft_options {
    explicit boft_options(const peft_options& o)
        : size(o.get<std::int64_t>("boft_block_size")),
          count(o.get<std::int64_t>("boft_block_num")),
          factors(o.get<std::int64_t>("boft_n_butterfly_factor")) {}
    std::int64_t size;
    std::int64_t count;
    std::int64_t factors;

    [[nodiscard]] bool fit(index block_size, index blocks, index factor_count) const {
        return (size != 0 ? size == block_size : count == blocks) && factors == factor_count;
    }
};

LOWRANK_INLINE peft_boft join_boft(peft_parts& p, const peft_options& o) {
    peft_boft out{.boft = {.boft_R = p.take_blocks("boft_R", 4), .boft_s = p.take_vector("boft_s")}};
    if (!p.why) {
        return out;
    }
    const auto& shape = p.find("boft_R")->shape;
    const auto butterfly = [](index m, index in, index b) {
        return m == 1 || (m <= 32 && b % 2 == 0 && b < (index{1} << 24) && in % (b << (m - 1)) == 0);
    };
    const auto m = static_cast<index>(shape[0]);
    const auto b = static_cast<index>(shape[3]);
    out.boft.in = out.boft.boft_R.size() != 0 ? out.boft.boft_R.rows() / m : 0;
    if (out.boft.in < 1 || shape[2] != shape[3] || !butterfly(m, out.boft.in, b)) {
        p.fail(errc::mismatch,
               "has a boft_R of shape " + shape_in_words(shape) + ", expected [factors, blocks, b, b] of a butterfly");
        return out;
    }
    p.expect_of_config(boft_options(o).fit(b, static_cast<index>(shape[1]), m),
                       std::to_string(m) + " factors of blocks of " + std::to_string(b));
    const auto& scale = p.find("boft_s")->shape;
    out.is_convolution = scale.size() == 2 && scale[0] == 1 && scale[1] != 1;
    return out;
}

}  // namespace detail

template <>
struct peft_kind<peft_boft> {
    using module = peft_boft;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "BOFT",
                 .dropout_key = "boft_dropout",
                 .has_bias = true,
                 .has_fan_in_fan_out = true,
                 .leaves = {"boft_R", "boft_s"},
                 .keys = {{"boft_block_size", std::int64_t{4}},
                          {"boft_block_num", std::int64_t{0}},
                          {"boft_n_butterfly_factor", std::int64_t{1}}},
                 .defaults = usual_peft_defaults}};
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        return check_blocks(o, "boft_block_size", "boft_block_num", 4);
    }
    static const char* label(const module&) { return "BOFT"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.boft.boft_s.size(), m.boft.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        return m.boft.in == in && m.boft.boft_s.size() == out;
    }
    LOWRANK_INLINE static peft_facts facts(const module&) { return {}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        return {.weight = row_change{row_rotation(m.boft.rotation(), m.boft.output_scale())}};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_boft(p, c.options); }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            o.set("boft_block_size", static_cast<std::int64_t>(m->boft.block_size()));
            o.set("boft_block_num", std::int64_t{0});
            o.set("boft_n_butterfly_factor", static_cast<std::int64_t>(m->boft.factor_count()));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        const index b = m.boft.block_size();
        const bool fits = b > 0 && detail::boft_options(o).fit(b, m.boft.in / b, m.boft.factor_count());
        return fits ? nullptr : "block size";
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const std::uint64_t b = detail::extent(m.boft.block_size());
        to.add("boft_R", {detail::extent(m.boft.factor_count()), b == 0 ? 0 : detail::extent(m.boft.in) / b, b, b},
               m.boft.boft_R);
        std::vector<std::uint64_t> shape{detail::extent(m.boft.boft_s.size()), 1};
        if (m.is_convolution) {
            std::swap(shape[0], shape[1]);
        }
        to.add("boft_s", shape, m.boft.boft_s);
    }
    LOWRANK_INLINE static result<any_adapter<float>> adapter(const module& m, const adapted_weight&) {
        return any_adapter<float>(m.boft);
    }
    LOWRANK_INLINE static std::optional<module> from(const any_adapter<float>& a) {
        const auto* boft = a.get<boft_adapter<float>>();
        return boft == nullptr ? std::nullopt : std::optional<module>({.boft = *boft});
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_ROTATIONS_BOFT_HPP

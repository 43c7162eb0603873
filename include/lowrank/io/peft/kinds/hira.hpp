// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_HIRA_HPP
#define LOWRANK_IO_PEFT_KINDS_HIRA_HPP

/// \file
/// HiRA in an adapter of PEFT: two factors a module, of a linear layer, a convolution or an embedding table.
///
///     const lowrank::peft_module module = lowrank::hira_adapter<float>{};    // in an adapter of peft_type HIRA
///
/// Names and shapes follow huggingface/peft.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/hira.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// HiRA of what is no linear layer. It is applied by merging it.
struct peft_hira {
    /// Of a convolution: A is r x (in * taps), B is out x r. Of a table: A is r x tokens, B is dim x r.
    hira_adapter<float> hira = {};
    std::vector<std::uint64_t> kernel = {};  ///< Of a convolution: {kw}, {kh, kw} or {kd, kh, kw}.
    bool is_table = false;
};

namespace detail {

LOWRANK_INLINE std::vector<peft_type> hira_types() {
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

}  // namespace detail

template <>
struct peft_kind<peft_hira> {
    using module = peft_hira;
    static constexpr bool is_second_form = true;
    static constexpr const char* only_merges = "is HiRA of a convolution or an embedding table";
    LOWRANK_INLINE static std::vector<peft_type> types() { return detail::hira_types(); }
    static const char* label(const module& m) {
        return m.is_table ? "HiRA of an embedding table" : "HiRA of a convolution";
    }
    LOWRANK_INLINE static module_shape shape(const module& m) {
        return {m.hira.hira_B.rows(), m.hira.hira_A.cols(), m.is_table};
    }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        return m.hira.hira_B.rows() == out && m.hira.hira_A.cols() == in;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.hira.hira_A.rows(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        return {.weight = row_change{hira_rows(m.hira)}, .is_table = m.is_table};
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add(m.is_table ? "hira_embedding_A" : "hira_A", detail::kernel_shape(m.hira.hira_A, m.kernel),
               m.hira.hira_A);
        std::vector<std::uint64_t> shape{detail::extent(m.hira.hira_B.rows()), detail::extent(m.hira.hira_B.cols())};
        shape.resize(2 + m.kernel.size(), 1);
        to.add(m.is_table ? "hira_embedding_B" : "hira_B", shape, m.hira.hira_B);
    }
};

template <>
struct peft_kind<hira_adapter<float>> {
    using module = hira_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() { return detail::hira_types(); }
    static const char* label(const module&) { return "HiRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.hira_B.rows(), m.hira_A.cols()}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        return m.hira_B.rows() == out && m.hira_A.cols() == in;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.hira_A.rows(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = row_change{hira_rows(m)}}; }
    /// Of a linear layer or not: the tensors tell.
    LOWRANK_INLINE static peft_module join(peft_parts& p, const peft_context& c) {
        const bool is_table = p.has("hira_embedding_A") || p.has("hira_embedding_B");
        if (is_table && (p.has("hira_A") || p.has("hira_B"))) {
            p.fail(errc::invalid_format, "has the factors of a layer beside those of an embedding table");
        }
        const std::string_view a = is_table ? "hira_embedding_A" : "hira_A",
                               b = is_table ? "hira_embedding_B" : "hira_B";
        peft_hira out{.hira = {.hira_A = p.take(a), .hira_B = p.take(b)}, .is_table = is_table};
        if (!p.why) {
            return out;
        }
        const auto& shape = p.find(a)->shape;
        p.agree(shape.size() == p.find(b)->shape.size() && p.taps(b) == 1 && (!is_table || shape.size() == 2));
        p.agree(out.hira.hira_A.rows() == out.hira.hira_B.cols());
        p.expect_of_config(out.hira.hira_A.rows() == c.r, "rank " + std::to_string(out.hira.hira_A.rows()));
        out.kernel.assign(shape.begin() + 2, shape.end());
        return is_table || !out.kernel.empty() ? peft_module(std::move(out)) : peft_module(std::move(out.hira));
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("hira_A", m.hira_A);
        to.add("hira_B", m.hira_B);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_HIRA_HPP

// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_ROTATIONS_OFT_HPP
#define LOWRANK_IO_PEFT_KINDS_ROTATIONS_OFT_HPP

/// \file
/// OFT in an adapter of PEFT: the triangles of its blocks; and OFT of the outputs as LyCORIS has it, which PEFT has not.
///
///     const lowrank::peft_module module = lowrank::oft_adapter<float>{};    // in an adapter of peft_type OFT
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
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
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/rotations/oft.hpp>
#include <lowrank/lora/kinds/rotations/output_rotation.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// What is wrong with options that a file has; and whether PEFT would read it with a warning.
LOWRANK_INLINE status check_oft(const peft_options& o, std::vector<std::string>& warnings) {
    if (!o.contains("oft_block_size")) {
        return {errc::unsupported,
                "the configuration has no oft_block_size: it is of PEFT before 0.14, whose OFT is another one and "
                "which PEFT does not read any more either"};
    }
    if (status why = check_blocks(o, "oft_block_size", "r", 32); !why) {
        return why;
    }
    if (const auto terms = o.get<std::int64_t>("num_cayley_neumann_terms");
        o.contains("num_cayley_neumann_terms") && (terms < 1 || terms > 64)) {
        return wrong_value("num_cayley_neumann_terms", "between 1 and 64", std::to_string(terms));
    }
    if (!(o.get<double>("eps") >= 0)) {
        return wrong_value("eps", "not negative", in_words(o.get<double>("eps")));
    }
    const bool has_series = !o.contains("use_cayley_neumann") || o.get<bool>("use_cayley_neumann");
    if (has_series && is_version_before(o.get<std::string>("peft_version"), 0, 18)) {
        warnings.push_back(
            "PEFT before 0.18 summed the Cayley-Neumann series in another way; an adapter of that time gives "
            "slightly other results here, as it does in newer PEFT");
    }
    return {};
}

/// Whether a configuration makes blocks of b x b for a weight of `in` inputs: one of size and count is 0.
LOWRANK_INLINE bool has_blocks(const peft_options& o, index in, index b) {
    const auto size = static_cast<index>(o.get<std::int64_t>("oft_block_size"));
    const auto count = static_cast<index>(o.get<std::int64_t>("r"));
    return size > 0 ? rotation_block_size(in, size) == b : count > 0 && rotation_block_size(in, count) * b == in;
}

LOWRANK_INLINE oft_adapter<float> join_oft(peft_parts& p, const peft_options& o) {
    if (p.has("oft_embedding_R.weight")) {
        p.fail(errc::unsupported, "adapts an embedding table by OFT, which is not supported");
        return {};
    }
    oft_adapter<float> out{
        .oft_R = p.take_blocks("oft_R.weight", 2),
        .coft = o.get<bool>("coft"),
        .eps = o.get<double>("eps"),
        .use_cayley_neumann = o.get<bool>("use_cayley_neumann"),
        .num_cayley_neumann_terms = static_cast<index>(o.get<std::int64_t>("num_cayley_neumann_terms"))};
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
    const bool is_shared = o.get<bool>("block_share");
    if (is_shared && blocks == 1) {  // the weight says how many inputs there are
        return out;
    }
    out.in = blocks * b;
    p.expect_of_config(!is_shared && has_blocks(o, out.in, b),
                       std::to_string(blocks) + " blocks of " + std::to_string(b) + " inputs");
    return out;
}

}  // namespace detail

template <>
struct peft_kind<oft_adapter<float>> {
    using module = oft_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "OFT",
                 .dropout_key = "module_dropout",
                 .has_bias = true,
                 .has_fan_in_fan_out = true,
                 .leaves = {"oft_R.weight", "oft_embedding_R.weight"},
                 .keys = {{"oft_block_size", std::int64_t{32}},
                          {"r", std::int64_t{0}},
                          {"block_share", false},
                          {"coft", false},
                          {"eps", 6e-5},
                          {"use_cayley_neumann", true},
                          {"num_cayley_neumann_terms", std::int64_t{5}},
                          {"peft_version", std::string("0.18.0")}},  // the first with the series as here
                 .defaults = usual_peft_defaults}};
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>& warnings) {
        return detail::check_oft(o, warnings);
    }
    static const char* label(const module&) { return "OFT"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {0, m.in}; }
    LOWRANK_INLINE static bool fit(module& m, [[maybe_unused]] index out, index in) {
        const bool fits = m.in != 0 ? m.in == in : in > 0 && in % m.block_size() == 0;
        m.in = fits ? in : m.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts(const module&) { return {}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.in == 0) {
            return {};
        }
        return {.weight = row_change{row_rotation(m.rotation(), m.output_scale())}};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_oft(p, c.options); }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            const auto all_have = [&](std::int64_t size) {
                return std::all_of(all.begin(), all.end(), [&](const module* a) {
                    return a->in == 0 || rotation_block_size(a->in, static_cast<index>(size)) == a->block_size();
                });
            };
            const auto b = static_cast<std::int64_t>(m->block_size());
            const auto size = o.get<std::int64_t>("oft_block_size");
            if (size <= 0 || (!all_have(size) && all_have(b))) {
                o.set("oft_block_size", b);
            }
            o.set("r", std::int64_t{0});
            if (m->in == 0 || (m->oft_R.rows() == 1 && m->in != m->block_size())) {
                o.set("block_share", true);
            }
            o.set("coft", m->coft);
            o.set("eps", m->eps);
            o.set("use_cayley_neumann", m->use_cayley_neumann);
            o.set("num_cayley_neumann_terms", static_cast<std::int64_t>(m->num_cayley_neumann_terms));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        const index b = m.block_size();
        const bool is_shared = o.get<bool>("block_share");
        const bool fits = (m.in == 0 || detail::has_blocks(o, m.in, b)) &&
                          (is_shared ? m.oft_R.rows() == 1 : m.oft_R.rows() * b == m.in);
        return !fits                                                       ? "block size"
               : m.coft != o.get<bool>("coft")                             ? "coft"
               : m.eps != o.get<double>("eps")                             ? "eps"
               : m.use_cayley_neumann != o.get<bool>("use_cayley_neumann") ? "use_cayley_neumann"
               : m.num_cayley_neumann_terms != static_cast<index>(o.get<std::int64_t>("num_cayley_neumann_terms"))
                   ? "num_cayley_neumann_terms"
                   : nullptr;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) { to.add("oft_R.weight", m.oft_R); }
};

/// LyCORIS's "diag-oft" (three dimensions) and "boft" (four), whose alpha is the constraint.
template <>
struct peft_kind<output_rotation_adapter<float>> {
    using module = output_rotation_adapter<float>;
    static constexpr bool is_second_form = true;
    static std::vector<peft_type> types() { return {}; }
    static const char* label(const module&) { return "OFT of the outputs (LyCORIS)"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.out(), 0}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index) { return m.out() == out; }
    static peft_facts facts(const module&) { return {}; }
    static double constant(const module& m) { return m.constraint; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.change()}; }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const std::uint64_t b = detail::extent(m.block_size());
        std::vector<std::uint64_t> shape{detail::extent(m.block_count), b, b};
        if (m.is_butterfly) {
            shape.insert(shape.begin(), detail::extent(m.factor_count()));
        }
        to.add("oft_blocks", shape, m.blocks);
        if (m.rescale.size() != 0) {
            shape.assign(m.rescale_dimensions, 1);
            shape[0] = detail::extent(m.rescale.size());
            to.add("rescale", shape, m.rescale);
        }
    }
    struct lycoris {
        static std::vector<std::string_view> leaves() { return {"oft_blocks", "rescale"}; }
        static std::vector<std::pair<std::string_view, const char*>> refused() {
            return {{"oft_diag",
                     "OFT under the name of LyCORIS's first releases, which turn the outputs of a layer, is not "
                     "supported"}};
        }
        static bool holds(const module&) { return true; }
        LOWRANK_INLINE static module join(peft_parts& p, std::optional<double> alpha) {
            const tensor_info* t = p.find("oft_blocks");
            const std::size_t dimensions = t != nullptr && t->shape.size() == 4 ? 4 : 3;
            module out{.blocks = p.take_blocks("oft_blocks", dimensions),
                       .is_butterfly = dimensions == 4,
                       .constraint = alpha.value_or(0)};
            if (p.has("rescale")) {
                out.rescale = p.take_vector("rescale");
                out.rescale_dimensions = p.find("rescale")->shape.size();
            }
            if (p.why) {
                out.block_count = static_cast<index>(t->shape[dimensions - 3]);
                p.agree(t->shape[dimensions - 2] == t->shape[dimensions - 1] && out.is_valid() &&
                        out.rescale_dimensions >= 1 && out.rescale_dimensions <= 5);
            }
            if (p.why && out.constraint < 0) {
                p.fail(errc::unsupported, "has a negative constraint (alpha)");
            }
            return out;
        }
        LOWRANK_INLINE static double write(const module& m, peft_tensors& to) {
            peft_kind::write(m, to);
            return m.constraint;
        }
    };
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_ROTATIONS_OFT_HPP

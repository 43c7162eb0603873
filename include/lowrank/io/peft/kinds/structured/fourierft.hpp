// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_STRUCTURED_FOURIERFT_HPP
#define LOWRANK_IO_PEFT_KINDS_STRUCTURED_FOURIERFT_HPP

/// \file
/// FourierFT in an adapter of PEFT: the coefficients; their frequencies follow from a seed and the shape of the weight.
///
///     const lowrank::peft_module module = lowrank::fourierft_adapter<float>{};    // in an adapter of peft_type FOURIERFT
///
/// Names and shapes follow huggingface/peft, whose frequencies are the first ones of `torch.randperm(out * in)`.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/structured/fourierft.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The frequencies are drawn when the shape of the weight is known.
LOWRANK_INLINE fourierft_adapter<float> join_fourierft(peft_parts& p, const peft_context& c) {
    fourierft_adapter<float> out{
        .fourierft_spectrum = p.take_vector("fourierft_spectrum"),
        .scaling = c.alpha,
        .random_loc_seed = static_cast<std::uint64_t>(c.options.get<std::int64_t>("random_loc_seed"))};
    p.expect_of_config(out.fourierft_spectrum.size() == c.r,
                       std::to_string(out.fourierft_spectrum.size()) + " frequencies");
    return out;
}

}  // namespace detail

template <>
struct peft_kind<fourierft_adapter<float>> {
    using module = fourierft_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "FOURIERFT",
                 .r_key = "n_frequency",
                 .r = 1000,
                 .alpha_key = "scaling",
                 .alpha = 150,
                 .has_rank_pattern = true,
                 .rank_pattern_key = "n_frequency_pattern",
                 .has_bias = true,
                 .bias_only = "fourier_only",
                 .has_fan_in_fan_out = true,
                 .leaves = {"fourierft_spectrum"},
                 .keys = {{"random_loc_seed", std::int64_t{777}}},
                 .defaults = usual_peft_defaults}};
    }
    static const char* label(const module&) { return "FourierFT"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.out, m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        if (m.out != 0) {
            return m.out == out && m.in == in;
        }
        const index n = m.fourierft_spectrum.size();
        const bool fits = out >= 1 && in >= 1 && out < torch_positions_limit &&
                          in <= (torch_positions_limit - 1) / out && n <= out * in;
        if (fits) {
            m.out = out;
            m.in = in;
            m.waves = make_fourierft_waves(out, in, torch_random_positions(out, in, n, m.random_loc_seed));
        }
        return fits;
    }
    LOWRANK_INLINE static const char* misfit(const module& m, index out, index in) {
        const bool is_large = in >= 1 && out >= 1 && out > (torch_positions_limit - 1) / in;
        return m.out != 0 ? nullptr
               : is_large
                   ? "of weights with 214748364 entries or more, releases of PyTorch draw other frequencies, and the "
                     "file does not say which"
                   : "it has more frequencies than the weight has entries";
    }
    /// The number of frequencies stands where other kinds have a rank, the scaling for alpha.
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.fourierft_spectrum.size(), m.scaling}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.out == 0) {
            return {};
        }
        return {.weight = m.delta()};
    }
    LOWRANK_INLINE static peft_change change_without_factors(const module& m) {
        if (m.out == 0) {
            return {};
        }
        return {.weight = m.row_sums()};
    }
    static index formed_rank(const module& m) { return m.rank(); }
    static double constant(const module& m) { return static_cast<double>(m.random_loc_seed); }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_fourierft(p, c); }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            o.set("random_loc_seed", static_cast<std::int64_t>(m->random_loc_seed));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return static_cast<std::int64_t>(m.random_loc_seed) != o.get<std::int64_t>("random_loc_seed")
                   ? "random_loc_seed"
                   : nullptr;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("fourierft_spectrum", {detail::extent(m.fourierft_spectrum.size())}, m.fourierft_spectrum);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_STRUCTURED_FOURIERFT_HPP

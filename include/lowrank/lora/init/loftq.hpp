// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_LOFTQ_HPP
#define LOWRANK_LORA_INIT_LOFTQ_HPP

/// \file
/// LoftQ: a quantized base and the adapter that takes back what quantizing lost, found in turns.
///
///     auto start = lowrank::loftq(w, lowrank::normal_float_quantizer{}, {.r = 16, .lora_alpha = 16});
///     use_base(start.base);                            // the dequantized Q
///     log(start.relative, start.relative_without);     // ||W - Q - scaling B A|| / ||W||, and of quantizing alone
///
/// A quantizer is anything that turns a row-major float matrix into what the quantized one computes with.
///
/// Li et al., LoftQ, arXiv 2310.08659; PEFT, utils/loftq_utils.py.

#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/lora/init/spectral_init.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>
#include <lowrank/quant/formats/normal_float.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Turns R into the dequantized Q(R), both out x in.
template <class Q>
concept weight_quantizer = requires(const Q& q, const row_matrix<float>& w) {
    { q(w) } -> std::convertible_to<row_matrix<float>>;
};

/// NormalFloat of 2, 4 or 8 bits: LoftQ's own.
struct normal_float_quantizer {
    normal_float_options options = {};
    [[nodiscard]] row_matrix<float> operator()(const row_matrix<float>& w) const {
        return quantize_normal_float(w, options).dense();
    }
};

/// A type of ggml, so that the base can be written as GGUF. \pre It has an encoder; rows are whole blocks of it.
struct ggml_quantizer {
    ggml_type type = ggml_type::q4_0;
    std::span<const quantized_type> types = quantized_types();
    [[nodiscard]] row_matrix<float> operator()(const row_matrix<float>& w) const;
};

struct loftq_options {
    int iterations = 1;  ///< Turns of quantizing and factoring. More are not always better; `relative` tells.
    init_scaling scaling = init_scaling::exact;  ///< `peft`: B A and not scaling B A is the best correction.
};

/// What LoftQ makes of one weight.
template <real S>
struct loftq_start {
    lora_adapter<S> adapter = {};
    row_matrix<float> base = {};  ///< Q, dequantized: the weight under the adapter.
    double relative = 0;          ///< ||W - Q - C||_F / ||W||_F with C the correction (scaling B A, `peft`: B A).
    double relative_without = 0;  ///< The same of quantizing alone, without an adapter.
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

/// Repeats Q = quantize(W - C), C = best rank r of W - Q.
///
/// \pre    1 <= r <= min(out, in), lora_alpha > 0, iterations >= 1; the quantizer keeps the shape.
/// \return `non_finite` if W holds NaN or infinity.
/// \cost   One `svd` per iteration.
template <detail::dense_weight W, weight_quantizer Q>
[[nodiscard]] loftq_start<weight_scalar<W>> loftq(const W& w, const Q& quantize, const lora_options& options,
                                                  const loftq_options& how = {}) {
    using S = weight_scalar<W>;
    detail::expects_init("loftq", w.rows(), w.cols(), options);
    detail::expects(how.iterations >= 1, "loftq: iterations must be at least 1");
    loftq_start<S> out;
    if (!all_finite(w)) {
        out.why = {errc::non_finite, "loftq: the weight holds NaN or infinity; repair or exclude it"};
        return out;
    }
    const row_matrix<S> weight = w.template cast<S>();
    const double norm = static_cast<double>(weight.stableNorm());
    const auto relative = [&](double missed) { return norm > 0 ? missed / norm : 0.0; };
    row_matrix<S> rest = weight;
    for (int i = 0; i < how.iterations; ++i) {
        out.base = quantize(row_matrix<float>(rest.template cast<float>()));
        detail::expects_shape("loftq", "the quantized weight", out.base.rows(), out.base.cols(), w.rows(), w.cols());
        const row_matrix<S> missed = weight - out.base.template cast<S>();
        if (i == 0) {
            out.relative_without = relative(static_cast<double>(missed.stableNorm()));
        }
        const auto spec = make_spectrum(missed);
        if (!spec) {
            out.why = spec.error();
            return out;
        }
        auto product = spec->truncate(options.r, sigma_split::square);
        rest = weight;
        rest.noalias() -= product.left * product.right;
        out.relative = relative(spec->error(options.r));
        out.adapter = detail::with_factors<S>(std::move(product.right), std::move(product.left), options);
    }
    if (how.scaling == init_scaling::exact) {
        const auto root = std::sqrt(static_cast<S>(lora_scaling(options.lora_alpha, options.r, options.use_rslora)));
        out.adapter.lora_A /= root;
        out.adapter.lora_B /= root;
    }
    return out;
}

inline row_matrix<float> ggml_quantizer::operator()(const row_matrix<float>& w) const {
    const quantized_type facts = facts_of(type, types);
    detail::expects(facts.encode != nullptr && facts.decode != nullptr,
                    "ggml_quantizer: the type must have an encoder");
    detail::expects(w.cols() % static_cast<index>(facts.block) == 0, "ggml_quantizer: rows must be whole blocks");
    const auto count = static_cast<std::size_t>(w.size());
    std::vector<std::byte> bytes(ggml_bytes(type, count, types));
    row_matrix<float> back(w.rows(), w.cols());
    quantize_ggml(type, {w.data(), count}, bytes, types);
    dequantize_ggml(type, bytes, {back.data(), count}, types);
    return back;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_LOFTQ_HPP

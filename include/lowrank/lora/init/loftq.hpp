// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_LOFTQ_HPP
#define LOWRANK_LORA_INIT_LOFTQ_HPP

/// \file
/// LoftQ: a quantized base and an adapter that corrects its error, computed alternately.
///
///     auto start = lowrank::loftq(w, lowrank::normal_float_quantizer{}, {.r = 16, .lora_alpha = 16});
///     use(start.base);                              // the dequantized Q
///     log(start.relative, start.relative_without);  // ||W - Q - scaling B A|| / ||W||, and without the adapter
///
/// A quantizer maps a row-major matrix, in float or in the scalar of W, to its quantized and dequantized version.
///
/// Li et al., LoftQ, arXiv 2310.08659; PEFT, utils/loftq_utils.py.

#include <concepts>
#include <functional>
#include <span>
#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/init/spectral_init.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>
#include <lowrank/quant/formats/normal_float.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Turns R into the dequantized Q(R), both out x in.
template <class Q, class S = float>
concept weight_quantizer = requires(const Q& q, const row_matrix<S>& w) {
    { q(w) } -> std::convertible_to<row_matrix<S>>;
    requires std::same_as<typename std::remove_cvref_t<decltype(q(w))>::Scalar, S>;
};

/// NormalFloat of 2, 4 or 8 bits: LoftQ's own.
struct normal_float_quantizer {
    normal_float_options options = {};
    LOWRANK_API [[nodiscard]] row_matrix<float> operator()(const row_matrix<float>& w) const;
};

/// A type of ggml, so that the base can be written as GGUF. \pre It has an encoder; rows are whole blocks of it.
struct ggml_quantizer {
    ggml_type type = ggml_type::q4_0;
    std::span<const quantized_type> types = quantized_types();
    LOWRANK_API [[nodiscard]] row_matrix<float> operator()(const row_matrix<float>& w) const;
};

struct loftq_options {
    int iterations = 1;  ///< Rounds of quantizing and factoring. More are not always better: compare `relative`.
    init_scaling scaling = init_scaling::exact;  ///< `peft`: B A and not scaling B A is the best correction.
};

/// The result of LoftQ for one weight.
template <real S>
struct loftq_start : fallible {
    lora_adapter<S> adapter = {};
    row_matrix<S> base = {};      ///< Q, dequantized: the weight under the adapter.
    double relative = 0;          ///< ||W - Q - C||_F / ||W||_F with C the correction (scaling B A, `peft`: B A).
    double relative_without = 0;  ///< The same of quantizing alone, without an adapter.
};

namespace detail {

template <real S>
[[nodiscard]] loftq_start<S> loftq_of(const matrix<S>& w,
                                      const std::function<row_matrix<S>(const row_matrix<S>&)>& quantize,
                                      const lora_options& options, const loftq_options& how);

}  // namespace detail

/// Repeats Q = quantize(W - C), C = best rank r of W - Q.
///
/// \pre    1 <= r <= min(out, in), lora_alpha > 0, iterations >= 1; the quantizer keeps the shape.
/// \return `non_finite` if W holds NaN or infinity.
/// \cost   One `svd` per iteration.
template <detail::dense_weight W, class Q>
requires(weight_quantizer<Q, weight_scalar<W>> || weight_quantizer<Q>)
    [[nodiscard]] loftq_start<weight_scalar<W>> loftq(const W& w, const Q& quantize, const lora_options& options,
                                                      const loftq_options& how = {}) {
    using S = weight_scalar<W>;
    if constexpr (weight_quantizer<Q, S>) {
        return detail::loftq_of<S>(copy_in<S>(w), std::cref(quantize), options, how);
    } else {
        const auto in_float = [&](const row_matrix<S>& rest) {
            return row_matrix<S>(
                row_matrix<float>(quantize(row_matrix<float>(rest.template cast<float>()))).template cast<S>());
        };
        return detail::loftq_of<S>(copy_in<S>(w), in_float, options, how);
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/init/loftq.ipp>
#endif

#endif  // LOWRANK_LORA_INIT_LOFTQ_HPP

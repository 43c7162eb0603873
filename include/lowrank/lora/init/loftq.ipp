// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_LOFTQ_IPP
#define LOWRANK_LORA_INIT_LOFTQ_IPP

#include <lowrank/lora/init/loftq.hpp>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/init/spectral_init.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY row_matrix<float> normal_float_quantizer::operator()(const row_matrix<float>& w) const {
    return quantize_normal_float(w, options).dense();
}

LOWRANK_BODY row_matrix<float> ggml_quantizer::operator()(const row_matrix<float>& w) const {
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

namespace detail {

template <real S>
loftq_start<S> loftq_of(const matrix<S>& w, const std::function<row_matrix<S>(const row_matrix<S>&)>& quantize,
                        const lora_options& options, const loftq_options& how) {
    expects_init("loftq", w.rows(), w.cols(), options);
    expects(how.iterations >= 1, "loftq: iterations must be at least 1");
    loftq_start<S> out;
    if (!all_finite(w)) {
        out.why = {errc::non_finite, "loftq: the weight holds NaN or infinity; repair or exclude it"};
        return out;
    }
    const double norm = norm_of(w);
    const auto relative = [&](double missed) { return norm > 0 ? missed / norm : 0.0; };
    matrix<S> rest = w;  // W - C
    matrix<S> missed(w.rows(), w.cols());
    for (int i = 0; i < how.iterations; ++i) {
        out.base = quantize(row_matrix<S>(rest));
        expects_shape("loftq", "the quantized weight", out.base.rows(), out.base.cols(), w.rows(), w.cols());
        for (index j = 0; j < w.cols(); ++j) {
            for (index k = 0; k < w.rows(); ++k) {
                missed(k, j) = w(k, j) - out.base(k, j);
            }
        }
        if (i == 0) {
            out.relative_without = relative(norm_of(missed));
        }
        const auto spec = svd(missed);
        if (!spec) {
            out.why = spec.why;
            return out;
        }
        auto product = spec.truncate(options.r, sigma_split::square);
        rest = w;
        add_product(S(-1), product.left, product.right, rest);
        out.relative = relative(spec.error_at(options.r));
        out.adapter = with_factors<S>(std::move(product.right), std::move(product.left), options);
    }
    if (how.scaling == init_scaling::exact) {
        const auto root = std::sqrt(static_cast<S>(lora_scaling(options.lora_alpha, options.r, options.use_rslora)));
        out.adapter.lora_A /= root;
        out.adapter.lora_B /= root;
    }
    return out;
}

}  // namespace detail

#ifdef LOWRANK_COMPILED
#define LOWRANK_LOFTQ_OF(S)                                                                                         \
    template loftq_start<S> detail::loftq_of<S>(const matrix<S>&,                                                   \
                                                const std::function<row_matrix<S>(const row_matrix<S>&)>& quantize, \
                                                const lora_options&, const loftq_options&);
LOWRANK_LOFTQ_OF(float)
LOWRANK_LOFTQ_OF(double)
#undef LOWRANK_LOFTQ_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_LOFTQ_IPP

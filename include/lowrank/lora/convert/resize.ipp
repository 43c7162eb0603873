// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_RESIZE_IPP
#define LOWRANK_LORA_CONVERT_RESIZE_IPP

#include <lowrank/lora/convert/resize.hpp>

#include <cmath>
#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
lora_resize<S> resize_lora(const lora_adapter<S>& a, const rank_choice& choice, sigma_split split) {
    const auto spec = svd(low_rank<S>{.left = a.lora_B, .right = a.lora_A});
    if (!spec) {
        return {{.why = spec.why}};
    }
    const index k = choose_rank(spec.s, choice);
    const double scaling = lora_scaling(a.lora_alpha, a.rank(), a.use_rslora);
    auto product = spec.truncate(k, split);
    lora_resize<S> out;
    out.adapter = {.lora_A = std::move(product.right),
                   .lora_B = std::move(product.left),
                   .lora_alpha = scaling * (a.use_rslora ? std::sqrt(static_cast<double>(k)) : static_cast<double>(k)),
                   .use_rslora = a.use_rslora,
                   .lora_dropout = a.lora_dropout};
    out.error = std::abs(scaling) * spec.error_at(k);
    out.relative = spec.relative_error(k);
    const auto& s = spec.s;
    double sum = 0.0;
    double kept = 0.0;
    for (index i = 0; i < s.size(); ++i) {
        sum += static_cast<double>(s(i));
        kept += i < k ? static_cast<double>(s(i)) : 0.0;
    }
    if (sum > 0.0) {
        out.sum_retained = kept / sum;
        out.frobenius_retained = norm_of(head_in<double>(s, k)) / norm_of(s);
        out.max_ratio = k > 0 ? static_cast<double>(s(0)) / static_cast<double>(s(k - 1)) : 1.0;
    }
    return out;
}

#ifdef LOWRANK_COMPILED
template lora_resize<float> resize_lora<float>(const lora_adapter<float>&, const rank_choice&, sigma_split);
template lora_resize<double> resize_lora<double>(const lora_adapter<double>&, const rank_choice&, sigma_split);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_CONVERT_RESIZE_IPP
